"""What a model keeps in memory: keys and values of its own heads alone, and no activations that are recomputed."""

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel, StaticCache
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_gpt import (
    HfGptConfig,
    HfGptForCausalLM,
    HfGptForConditionalGeneration,
    HfGptForSequenceClassification,
    HfGptSeq2SeqConfig,
    HfLstmConfig,
    HfLstmForCausalLM,
    HfNgramCnnConfig,
    HfNgramCnnForSequenceClassification,
)


SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
GROUPED = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64}

MODELS = {
    "decoder": lambda: HfGptForCausalLM(HfGptConfig(**GROUPED)),
    "discriminator": lambda: HfGptForSequenceClassification(HfGptConfig(**GROUPED, num_labels=1)),
    "encoder_decoder": lambda: HfGptForConditionalGeneration(HfGptSeq2SeqConfig(**GROUPED, decoder_start_token_id=1)),
    "lstm": lambda: HfLstmForCausalLM(HfLstmConfig(**SIZES)),
    "ngram_cnn": lambda: HfNgramCnnForSequenceClassification(HfNgramCnnConfig(vocab_size=64, num_labels=1)),
}


def loss_of(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.randint(2, 64, (2, 7), generator=torch.Generator().manual_seed(0))
    labels = ids if model.config.is_encoder_decoder or hasattr(model, "lm_head") else torch.tensor([1, 0])
    return model(input_ids=ids, labels=labels).loss


@pytest.mark.parametrize("name", MODELS)
def test_gradient_checkpointing_works_each_layer_out_twice(name):
    model = MODELS[name]().train()
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    calls = dict.fromkeys(layers, 0)
    for layer in layers:
        # A part of the layer: hooks of the layer itself stay outside of what runs again.
        part = next(
            module for module in layer.modules() if module is not layer and list(module.parameters(recurse=False))
        )

        def count(*_, _layer=layer):
            calls[_layer] += 1

        part.register_forward_pre_hook(count)
    loss_of(model).backward()
    assert len(layers) >= 1
    assert set(calls.values()) == {1}
    model.gradient_checkpointing_enable()
    loss_of(model).backward()
    assert set(calls.values()) == {3}, "each layer runs forward, and once more in the backward pass"


@pytest.mark.parametrize("name", ["decoder", "discriminator", "encoder_decoder"])
def test_every_block_can_be_checkpointed(name):
    model = MODELS[name]()
    blocks = [module for module in model.modules() if type(module).__name__ in model._no_split_modules]
    assert blocks
    assert all(isinstance(block, GradientCheckpointingLayer) for block in blocks)


def test_gradient_checkpointing_keeps_less():
    model = HfGptForCausalLM(HfGptConfig(**{**GROUPED, "num_hidden_layers": 6})).train()
    sizes = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept=kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.ones(4, 64, dtype=torch.long), labels=torch.ones(4, 64, dtype=torch.long))
        sizes.append(sum(kept.values()))
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("static", [False, True])
def test_cache_holds_the_heads_of_keys_and_values_alone(attention, static):
    model = HfGptForCausalLM(HfGptConfig(**GROUPED, attn_implementation=attention)).eval()
    cache = StaticCache(config=model.config, max_cache_len=9) if static else DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.ones(3, 5, dtype=torch.long), past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        assert layer.keys.shape == layer.values.shape == (3, 2, 9 if static else 5, 8)


def test_cache_of_an_encoder_decoder_holds_the_heads_of_keys_and_values_alone():
    model = MODELS["encoder_decoder"]().eval()
    with torch.no_grad():
        output = model(torch.ones(3, 5, dtype=torch.long), decoder_input_ids=torch.ones(3, 4, dtype=torch.long))
    cache = output.past_key_values
    for layer in cache.self_attention_cache.layers:
        assert layer.keys.shape == layer.values.shape == (3, 2, 4, 8)
    for layer in cache.cross_attention_cache.layers:
        assert layer.keys.shape == layer.values.shape == (3, 2, 5, 8)


def test_cache_forgets_what_a_sliding_window_has_passed():
    config = HfGptConfig(**GROUPED, sliding_window=3, layer_types=["sliding_attention", "full_attention"])
    with torch.no_grad():
        cache = HfGptForCausalLM(config).eval()(torch.ones(1, 8, dtype=torch.long), use_cache=True).past_key_values
    assert [layer.keys.shape[2] for layer in cache.layers] == [2, 8]
