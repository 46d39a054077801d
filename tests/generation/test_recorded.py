"""An update that goes on from what drawing worked out: values and gradients of a forward pass, without its products."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.generation.decoding.native.structures import native
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from hf_gpt.generation.scoring.logprobs import completion_logits, token_logps
from tests.sampling_options import rollout


OPTIONS = {
    "plain": {},
    "gated": {"hidden_act": "silu", "is_gated_act": True, "use_qk_norm": False, "num_key_value_heads": 2},
    "biased": {
        "position_embedding_type": "learned",
        "norm_type": "layernorm",
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "hidden_act": "gelu",
    },
    "capped": {"final_logit_softcapping": 5.0, "logit_scale": 0.5, "tie_word_embeddings": False},
    "sliding": {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]},
    "odd sizes": {"hidden_size": 36, "vocab_size": 43, "intermediate_size": 50, "num_attention_heads": 2},
}


@pytest.fixture(autouse=True)
def _compiled():
    if native() is None:
        pytest.skip("there is no C compiler")


def make(**options) -> HfGptForCausalLM:
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return HfGptForCausalLM(HfGptConfig(**{**sizes, "initializer_range": 0.2, **options})).train()


def sample(model, ends=True, **settings):
    """Six texts for two prompts of three and five tokens, and their recording."""
    prompts, mask = torch.randint(3, 40, (2, 5)), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    activation_cache = ActivationCache()
    settings = {"num_return_sequences": 3, "max_new_tokens": 12, "activation_cache": activation_cache, **settings}
    eos_token_id = list(range(3, 9)) if ends else None
    return rollout(model, prompts, mask, eos_token_id=eos_token_id, pad_token_id=0, **settings), activation_cache


def logps_and_gradients(model, samples, activation_cache):
    model.zero_grad()
    with FlopCounterMode(display=False) as counted:
        count = samples.completions.shape[1]
        logits = completion_logits(
            model, samples.sequences, samples.attention_mask, samples.prompt_length, count, activation_cache
        )
        logps = token_logps(logits, samples.completions)
    kept = samples.completion_mask.bool()
    (logps[kept] * torch.linspace(-1, 1, int(kept.sum()))).sum().backward()
    return logps[kept].detach(), {name: p.grad for name, p in model.named_parameters()}, counted.get_total_flops()


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_and_gradients_are_those_of_a_forward_pass(options, ends):
    model = make(**options)
    samples, activation_cache = sample(model, ends)
    lengths = samples.completion_mask.sum(1)
    assert activation_cache.linear_outputs and (not ends or lengths.min() < lengths.max())
    *expected, whole = logps_and_gradients(model, samples, None)
    *found, rest = logps_and_gradients(model, samples, activation_cache)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(found[0], samples.logps[samples.completion_mask.bool()], rtol=1e-4, atol=1e-5)
    assert rest < whole / 2


def test_of_other_weights_or_texts_nothing_is_taken():
    model = make()
    samples, activation_cache = sample(model)
    assert activation_cache.is_of(model, samples.completions)
    other = samples.completions.clone()
    other[0, 0] += 1
    assert not activation_cache.is_of(model, other) and not activation_cache.is_of(model, samples.completions[:, :-1])
    assert not activation_cache.is_of(make(), samples.completions)
    model(samples.sequences, labels=samples.sequences).loss.backward()
    torch.optim.AdamW(model.parameters(), fused=True).step()
    assert not activation_cache.is_of(model, samples.completions)
    weight = model.model.layers[0].mlp.up_proj.weight
    samples, activation_cache = sample(model)
    assert activation_cache.is_of(model, samples.completions)
    # Sums would not tell.
    weight.data[[0, 1]] = weight.data[[1, 0]]
    assert not activation_cache.is_of(model, samples.completions)
    *expected, whole = logps_and_gradients(model, samples, None)
    *found, again = logps_and_gradients(model, samples, activation_cache)
    assert again == whole
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"batch_size": 4}, {"weight_dtype": "bfloat16"}, {"max_new_tokens": 1}])
def test_where_nothing_is_recorded(settings):
    model = make()
    samples, activation_cache = sample(model, ends=False, **settings)
    assert not activation_cache.linear_outputs and not activation_cache.is_of(model, samples.completions)


def test_too_many_texts_are_not_recorded(monkeypatch):
    monkeypatch.setattr("hf_gpt.generation.sampling.activation_cache.MOST_BYTES", 10_000)
    assert not sample(make())[1].linear_outputs


def test_several_threads_record_the_same():
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            samples, activation_cache = sample(make(), generator=torch.Generator().manual_seed(0))
            found.append([activation_cache.logits, *activation_cache.linear_outputs, samples.completions])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, rtol=0, atol=0)
