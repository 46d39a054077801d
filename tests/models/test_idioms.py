"""What users do with any model of the library, for each of our model types: as Llama and Bart take it."""

import pytest
import torch

import hf_gpt


SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 1}
GPT = {**SIZES, "num_attention_heads": 2}
CNN = {"vocab_size": 40, "kernel_sizes": [1, 3], "num_filters": [4, 4], "pad_token_id": 0}
MODELS = {
    "decoder": ("HfGptConfig", "HfGptForCausalLM", GPT),
    "learned": ("HfGptConfig", "HfGptForCausalLM", {**GPT, "position_embedding_type": "learned", "sliding_window": 3}),
    "bidirectional": ("HfGptConfig", "HfGptForTokenClassification", {**GPT, "is_causal": False}),
    "discriminator": ("HfGptConfig", "HfGptForSequenceClassification", {**GPT, "num_labels": 1}),
    "lstm": ("HfLstmConfig", "HfLstmForCausalLM", SIZES),
    "lstm, both ways": ("HfLstmConfig", "HfLstmForTokenClassification", {**SIZES, "is_causal": False}),
    "encoder-decoder": ("HfGptSeq2SeqConfig", "HfGptForConditionalGeneration", GPT),
    "n-gram CNN": ("HfNgramCnnConfig", "HfNgramCnnForSequenceClassification", {**CNN, "num_labels": 1}),
}
IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 0, 0]])
MASKS = {"right": [[1] * 5, [1, 1, 1, 0, 0]], "left": [[1] * 5, [0, 0, 1, 1, 1]], "inside": [[1] * 5, [1, 0, 1, 0, 1]]}


def make(name, **options):
    torch.manual_seed(0)
    config, head, settings = MODELS[name]
    return getattr(hf_gpt, head)(getattr(hf_gpt, config)(**{**settings, **options})).eval()


def inputs_of(name, mask="right"):
    inputs = {"input_ids": IDS, "attention_mask": torch.tensor(MASKS[mask])}
    return inputs | ({"decoder_input_ids": IDS} if name == "encoder-decoder" else {})


@pytest.mark.parametrize("name", MODELS)
def test_meta_device(name):
    inputs, model = inputs_of(name), make(name)
    expected = model(**inputs).logits.shape
    meta = {key: value.to("meta") for key, value in inputs.items()}
    for kept in (meta, {key: value for key, value in meta.items() if key != "attention_mask"}):
        assert model.to("meta")(**kept).logits.shape == expected


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", ["lstm", "lstm, both ways"])
def test_export_with_a_mask(name, mask):
    model, inputs = make(name), inputs_of(name, mask)
    model.config.use_cache = False
    exported = torch.export.export(model, (), inputs, strict=False).module()
    for other in MASKS:
        inputs = inputs_of(name, other)
        kept = inputs["attention_mask"].bool()
        expected, found = model(**inputs).logits, exported(**inputs).logits
        torch.testing.assert_close(found[kept], expected[kept], rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["lstm", "lstm, both ways"])
@pytest.mark.parametrize("kind", [*MASKS, "documents"])
def test_blind_reading_of_an_lstm_is_the_same(monkeypatch, name, kind):
    model, inputs = make(name), {"input_ids": IDS}
    if kind == "documents":
        inputs["position_ids"] = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
    else:
        inputs["attention_mask"] = torch.tensor(MASKS[kind])
    expected = model(**inputs)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    found = model(**inputs)
    kept = inputs.get("attention_mask", torch.ones_like(IDS)).bool()
    torch.testing.assert_close(found.logits[kept], expected.logits[kept], rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(found.get("past_key_values") or [], expected.get("past_key_values") or [], strict=True):
        torch.testing.assert_close(mine[:2], theirs[:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["decoder", "lstm", "encoder-decoder"])
def test_settings_of_the_configuration_count_when_they_are_set_later(name):
    model, inputs = make(name), inputs_of(name)
    assert model(**inputs).past_key_values is not None
    model.config.use_cache = False
    assert model(**inputs).past_key_values is None
    assert model(**inputs, use_cache=True).past_key_values is not None
    field = "decoder_hidden_states" if name == "encoder-decoder" else "hidden_states"
    assert model(**inputs)[field] is None if field in model(**inputs) else True
    model.config.output_hidden_states = True
    assert len(model(**inputs)[field]) == 3


@pytest.mark.parametrize("name", MODELS)
def test_default_targets_of_an_adapter(name):
    from peft import LoraConfig, get_peft_model

    base, inputs = make(name), inputs_of(name)
    before = base(**inputs).logits
    adapted = get_peft_model(base, LoraConfig(init_lora_weights=False, r=2))
    assert (adapted(**inputs).logits - before).abs().max() > 0
