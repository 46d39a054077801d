"""Whatever stands around a module of ours, the model goes on: adapters of every kind, plain wrappers."""

import copy

import peft
import pytest
import torch
from torch import nn

import hf_gpt
from hf_gpt.generation.decoding.plain_decoder import can_decode
from hf_gpt.generation.embeddings import embedding_table, vocabulary_size
from hf_gpt.generation.scoring.discriminator import discriminator_logits, prefix_logits
from hf_gpt.generation.scoring.logprobs import completion_logits
from tests.sampling_options import rollout


SMALL = {"vocab_size": 40, "hidden_size": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODER = {"num_hidden_layers": 2, "num_attention_heads": 2, "output_projection_init": "normal"}
IDS = torch.tensor([[1, 5, 6, 7, 5, 9], [1, 6, 30, 31, 32, 2]])


def decoder():
    return hf_gpt.HfGptForCausalLM(hf_gpt.HfGptConfig(**SMALL, **DECODER))


def gpt2_like():
    switches = {"position_embedding_type": "learned", "max_position_embeddings": 32, "norm_type": "layernorm"}
    return hf_gpt.HfGptForCausalLM(hf_gpt.HfGptConfig(**SMALL, **DECODER, **switches, use_qk_norm=False))


def untied():
    gated = {"is_gated_act": True, "hidden_act": "silu", "intermediate_size": 24}
    return hf_gpt.HfGptForCausalLM(hf_gpt.HfGptConfig(**SMALL, **DECODER, **gated, tie_word_embeddings=False))


def lstm():
    return hf_gpt.HfLstmForCausalLM(hf_gpt.HfLstmConfig(**SMALL, tie_word_embeddings=False))


def encoder_decoder():
    return hf_gpt.HfGptForConditionalGeneration(hf_gpt.HfGptSeq2SeqConfig(**SMALL, **DECODER))


def classifier():
    config = hf_gpt.HfGptConfig(
        **SMALL, **DECODER, num_labels=1, classifier_pooling="attention", classifier_hidden_size=8
    )
    return hf_gpt.HfGptForSequenceClassification(config)


def lstm_classifier():
    return hf_gpt.HfLstmForSequenceClassification(hf_gpt.HfLstmConfig(**SMALL, num_labels=1))


def ngram_cnn():
    fields = {**SMALL, "hidden_size": 15, "embedding_size": 8, "num_highway_layers": 1, "classifier_dropout": 0.0}
    return hf_gpt.HfNgramCnnForSequenceClassification(hf_gpt.HfNgramCnnConfig(**fields, num_labels=1))


WRITERS = {f.__name__: f for f in (decoder, gpt2_like, untied, lstm, encoder_decoder)}
JUDGES = {f.__name__: f for f in (classifier, lstm_classifier, ngram_cnn)}


def inputs_of(model):
    if model.config.is_encoder_decoder:
        return {"input_ids": IDS, "labels": IDS}
    if model.config.num_labels == 1:
        return {"input_ids": IDS, "attention_mask": (IDS != 0).long(), "labels": torch.tensor([0.0, 1.0])}
    return {"input_ids": IDS, "labels": IDS}


def randomise(model):
    """Adapters begin as no change at all: one that does something."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


CONFIGS = {
    "trainable_tokens": lambda targets: peft.LoraConfig(
        trainable_token_indices=[5, 6], target_modules=targets, ensure_weight_tying=False
    ),
    "trainable_tokens_tied": lambda targets: peft.LoraConfig(
        trainable_token_indices=[5, 6], target_modules=targets, ensure_weight_tying=True
    ),
    "trainable_tokens_alone": lambda targets: peft.TrainableTokensConfig(
        token_indices=[5, 6], target_modules=["encoder.embed_tokens"] if "v_proj" in targets else ["embed_tokens"]
    ),
    "lora": lambda targets: peft.LoraConfig(r=2, target_modules=targets),
    "lora_embeddings": lambda targets: peft.LoraConfig(r=2, target_modules=[*targets, "embed_tokens"]),
    "lora_head": lambda targets: peft.LoraConfig(r=2, target_modules=[*targets, "lm_head"]),
    "dora": lambda targets: peft.LoraConfig(r=2, target_modules=targets, use_dora=True),
    "dora_embeddings": lambda targets: peft.LoraConfig(r=2, target_modules=[*targets, "embed_tokens"], use_dora=True),
    "rslora_embeddings_saved": lambda targets: peft.LoraConfig(
        r=2, use_rslora=True, target_modules=targets, modules_to_save=["embed_tokens"]
    ),
    "all_saved": lambda targets: peft.LoraConfig(
        r=2, target_modules=targets, modules_to_save=["embed_tokens", "lm_head", "norm"]
    ),
    "loha": lambda targets: peft.LoHaConfig(r=2, target_modules=targets),
    "lokr": lambda targets: peft.LoKrConfig(r=2, target_modules=targets),
    "vera": lambda targets: peft.VeraConfig(r=2, target_modules=["q_proj"]),
    "oft": lambda targets: peft.OFTConfig(r=0, oft_block_size=4, target_modules=targets),
}
TARGETS = {
    "decoder": ["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"],
    "gpt2_like": ["q_proj", "o_proj", "down_proj"],
    "untied": ["q_proj", "gate_proj", "up_proj"],
    "encoder_decoder": ["q_proj", "v_proj", "down_proj"],
    "lstm": ["lm_head"],
}
# PEFT warns that it cannot merge what changes one of two tied matrices: Llama's logits change as much.
TIED_UNMERGEABLE = ("lora_embeddings", "lora_head", "dora_embeddings")
# Variations of what is tried quickly.
SLOW = ("rslora_embeddings_saved", "lora_head", "dora_embeddings", "loha", "lokr", "vera", "oft")
MARKS = dict.fromkeys(SLOW, pytest.mark.slow)
# An LSTM's only linear layer is its head.
NOT_OF_AN_LSTM = ("all_saved", "vera", "oft")


def logits_of(model):
    with torch.no_grad():
        return model.eval()(**inputs_of(model)).logits


@pytest.mark.parametrize("method", [pytest.param(method, marks=MARKS.get(method, ())) for method in CONFIGS])
@pytest.mark.parametrize("name", WRITERS)
def test_adapters_of_every_kind(name, method, tmp_path):
    torch.manual_seed(0)
    if name == "lstm" and method in NOT_OF_AN_LSTM:
        pytest.skip("an LSTM has no linear layer but its head")
    base = WRITERS[name]()
    kept = copy.deepcopy(base)
    model = peft.get_peft_model(base, CONFIGS[method](TARGETS[name]))
    # An adapter that has just been made changes nothing.
    if method != "vera":
        torch.testing.assert_close(logits_of(model), logits_of(kept))
    randomise(model)
    adapted = logits_of(model)
    assert not torch.allclose(adapted, logits_of(kept))
    model.train()
    model(**inputs_of(model)).loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    model.eval()
    texts = model.generate(input_ids=IDS[:, :4], max_new_tokens=3, do_sample=False)
    assert len(texts) == 2
    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(kept, tmp_path / "adapter")
    torch.testing.assert_close(logits_of(again), adapted)
    if not (kept.config.tie_word_embeddings and method in TIED_UNMERGEABLE):
        merged = model.merge_and_unload()
        torch.testing.assert_close(logits_of(merged), adapted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "targets", "saved"),
    [
        ("classifier", ["q_proj", "dense"], ["score", "pooler"]),
        ("classifier", ["embed_tokens", "score"], ["norm"]),
        ("lstm_classifier", ["embed_tokens"], ["lstm", "score", "pooler"]),
        ("ngram_cnn", ["embed_tokens"], ["filters.0", "filters.3", "score", "pooler"]),
        ("ngram_cnn", ["filters.0", "filters.1", "gate"], ["score"]),
    ],
)
def test_judges_with_adapters(name, targets, saved, tmp_path):
    torch.manual_seed(0)
    base = JUDGES[name]()
    kept = copy.deepcopy(base)
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=targets, modules_to_save=saved))
    torch.testing.assert_close(logits_of(model), logits_of(kept))
    randomise(model)
    adapted = logits_of(model)
    assert not torch.allclose(adapted, logits_of(kept))
    # Every prefix is scored by the same adapted parts, padding or none.
    padded = torch.tensor([[0, 0, 1, 5, 6, 7]])
    mask = (padded != 0).long()
    with torch.no_grad():
        prefixes = prefix_logits(model, padded[:, 2:], mask[:, 2:])
        whole = discriminator_logits(model, padded, mask)
    torch.testing.assert_close(prefixes[:, -1], whole)
    model.train()(**inputs_of(model)).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(kept, tmp_path / "adapter")
    torch.testing.assert_close(logits_of(again), adapted)
    torch.testing.assert_close(logits_of(model.merge_and_unload()), adapted, rtol=1e-4, atol=1e-5)


def test_virtual_tokens_of_a_discriminator_count():
    torch.manual_seed(0)
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    model = peft.get_peft_model(classifier(), config).eval()
    mask = torch.ones_like(IDS)
    with torch.no_grad():
        expected = model(input_ids=IDS, attention_mask=mask).logits[:, 0]
        bare = model.get_base_model()(input_ids=IDS, attention_mask=mask).logits[:, 0]
        found = discriminator_logits(model, IDS, mask)
    assert not torch.allclose(expected, bare)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="does not score every prefix in one pass"):
        prefix_logits(model, IDS, mask)


class Wrapper(nn.Module):
    """Tells nothing of what it stands around."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, *args, **kwargs):
        return self.inside(*args, **kwargs)


def wrap(model, name):
    parent = model.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], Wrapper(model.get_submodule(name)))


def parts_of(model):
    """Every module whose inputs and outputs are tensors, by name."""
    leaves = (nn.Linear, nn.Embedding, nn.LSTM, nn.Conv1d, nn.Dropout, nn.LayerNorm, nn.Identity)
    for name, module in model.named_modules():
        if isinstance(module, leaves) or type(module).__name__.endswith(("Norm", "MLP", "Attention", "Pooler")):
            yield name


@pytest.mark.parametrize("name", [*WRITERS, *JUDGES])
def test_wrappers_that_tell_nothing(name):
    torch.manual_seed(0)
    model = {**WRITERS, **JUDGES}[name]()
    expected = logits_of(model)
    reading = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    prefixes = model.prefix_logits(**reading) if name in JUDGES else None
    for part in reversed(list(parts_of(model))):
        wrap(model, part)
    torch.testing.assert_close(logits_of(model), expected)
    if name in JUDGES:
        torch.testing.assert_close(model.prefix_logits(**reading), prefixes)
        # Rows with padding are read in another way.
        padded = torch.cat([torch.zeros(2, 2, dtype=torch.long), IDS], 1)
        found = model(input_ids=padded, attention_mask=(padded != 0).long()).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    else:
        assert model.generate(input_ids=IDS[:, :4], max_new_tokens=2, do_sample=False).shape[0] == 2


@pytest.mark.parametrize("name", WRITERS)
def test_ids_out_of_range_are_refused_behind_a_wrapper_too(name):
    model = WRITERS[name]()
    for part in [part for part in parts_of(model) if part.endswith("embed_tokens")]:
        wrap(model, part)
    inputs = {key: value.clone().fill_(40) for key, value in inputs_of(model).items() if key == "input_ids"}
    with pytest.raises(ValueError, match=r"input_ids holds 40, outside 0 to 39"):
        model(**inputs)


def test_embeddings_of_another_size_are_asked_first():
    model = decoder()
    model.set_input_embeddings(nn.Embedding(50, 16))
    assert model(torch.tensor([[49]])).logits.shape == (1, 1, 40)


@pytest.mark.parametrize("shared", [True, False])
def test_halves_follow_a_resized_encoder_decoder(shared):
    config = hf_gpt.HfGptSeq2SeqConfig(**SMALL, **DECODER, share_encoder_decoder_embeddings=shared)
    model = hf_gpt.HfGptForConditionalGeneration(config)
    model.resize_token_embeddings(44)
    assert model.model.encoder.config.vocab_size == model.model.decoder.config.vocab_size == 44
    for half in ("encoder", "decoder"):
        wrap(model, f"model.{half}.embed_tokens")
    ids = torch.tensor([[43, 1]])
    assert model(input_ids=ids, decoder_input_ids=ids).logits.shape == (1, 2, 44)


def test_a_head_with_a_bias_or_a_watched_one_is_called():
    torch.manual_seed(0)
    config = hf_gpt.HfGptConfig(**SMALL, **DECODER, chunked_loss="always", tie_word_embeddings=False)
    model = hf_gpt.HfGptForCausalLM(config)
    model.lm_head = nn.Linear(16, 40)
    nn.init.normal_(model.lm_head.bias)
    loss = model.train()(IDS, labels=IDS).loss
    loss.backward()
    logits = model.eval()(IDS).logits
    expected = nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 40), IDS[:, 1:].reshape(-1))
    torch.testing.assert_close(loss, expected)
    assert model.lm_head.bias.grad.abs().sum() > 0
    model = hf_gpt.HfGptForCausalLM(config).train()
    seen = []
    model.lm_head.register_full_backward_hook(lambda *args: seen.append(1))
    model(IDS, labels=IDS).loss.backward()
    assert seen == [1]


@pytest.mark.parametrize("part", ["model.embed_tokens", "lm_head", "model.norm", "model.layers.0.mlp"])
def test_fast_steps_leave_wrapped_models_to_the_forward_pass(part):
    model = decoder().eval()
    assert can_decode(model)
    wrap(model, part)
    assert not can_decode(model)


def test_rollouts_and_likelihoods_with_trained_tokens():
    torch.manual_seed(0)
    model = peft.get_peft_model(decoder(), CONFIGS["trainable_tokens_tied"](["q_proj"]))
    randomise(model)
    assert not can_decode(model.get_base_model())
    texts = rollout(model.eval(), IDS[:, :3], max_new_tokens=3, eos_token_id=2, pad_token_id=0)
    sequence = texts.sequences
    logits = completion_logits(model, sequence, texts.attention_mask, texts.prompt_length, 3)
    expected = model(input_ids=sequence, attention_mask=texts.attention_mask).logits[:, 2:5]
    kept = texts.completion_mask.bool()
    torch.testing.assert_close(logits[kept], expected[kept], rtol=1e-4, atol=1e-5)


def test_embeddings_as_the_model_sees_them():
    torch.manual_seed(0)
    model = peft.get_peft_model(decoder(), CONFIGS["trainable_tokens"](["q_proj"]))
    randomise(model)
    embedding = model.get_input_embeddings()
    assert vocabulary_size(model) == 40
    table = embedding_table(embedding, 40)
    torch.testing.assert_close(table[IDS], embedding(IDS))
    assert not torch.equal(table, embedding.original_module.weight)
