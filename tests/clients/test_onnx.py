"""Graphs that transformers.exporters write, run by ONNX Runtime: `make check-onnx`."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from tests.clients.records import equal_tokens, record
from tests.clients.reference import NUM_NEW_TOKENS, count_equal, sizes


pytest.importorskip("onnxruntime", reason="make check-onnx installs ONNX Runtime in an environment of its own")
pytest.importorskip("onnxscript", reason="make check-onnx installs onnxscript in an environment of its own")

TOLERANCE = 1e-4


def keep(record_property, compared, metric):
    record(record_property, "ONNX Runtime", "onnx", compared, metric, package="onnxruntime")


def read_back(exported, folder):
    from transformers.exporters.base import ExportedModel

    exported.save_pretrained(folder)
    return ExportedModel.from_pretrained(folder, device="cpu")


def random_batch(rows, length, padded, vocab_size):
    """The first row has `padded` places of padding at the left."""
    ids = torch.randint(2, vocab_size, (rows, length), generator=torch.Generator().manual_seed(length))
    if padded is None:
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    mask[0, :padded] = 0
    return {"input_ids": ids, "attention_mask": mask}


def greatest_difference(model, folder, more_inputs=lambda batch: {}, with_mask=True):
    """Of the logits of a graph and of the model that it was written from, for batches of other shapes than the example
    that was traced."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    def make_inputs(rows, length, padded):
        batch = random_batch(rows, length, padded if with_mask else None, model.config.vocab_size)
        return {**batch, **more_inputs(batch)}

    exported = OnnxExporter().export(model, make_inputs(2, 8, 3), OnnxConfig(dynamic=True))
    exported = read_back(exported, folder)
    differences = []
    for shape in ((1, 5, 0), (3, 40, 7)):
        inputs = make_inputs(*shape)
        with torch.no_grad():
            expected = model(**inputs).logits
        found = exported(**inputs).logits
        assert found.shape == expected.shape and expected.abs().max() > 0.01
        if with_mask and found.shape[:2] == inputs["attention_mask"].shape:
            # What stands at padding is read by nobody.
            real = inputs["attention_mask"].bool()
            found, expected = found[real], expected[real]
        differences.append((found - expected).abs().max().item())
    return max(differences)


def test_logits_of_the_language_model(reference, record_property, tmp_path):
    difference = greatest_difference(reference.model, tmp_path, lambda batch: {"use_cache": False})
    assert difference < TOLERANCE
    keep(record_property, "logits of the language model", f"max difference {difference:.1e}")


@pytest.mark.parametrize(
    ("auto_class", "model_type", "what"),
    [
        (AutoModelForSequenceClassification, "hf_gpt", "discriminator"),
        (AutoModelForCausalLM, "hf_lstm", "LSTM"),
        (AutoModelForSeq2SeqLM, "hf_gpt_seq2seq", "encoder-decoder"),
        (AutoModelForSequenceClassification, "hf_ngram_cnn", "n-gram CNN critic"),
    ],
)
def test_logits_of_other_heads(reference, record_property, tmp_path, auto_class, model_type, what):
    settings = {**sizes(reference.tokenizer), "initializer_range": 0.3}
    one_label = auto_class is AutoModelForSequenceClassification
    if one_label:
        settings["num_labels"] = 1
    if model_type == "hf_ngram_cnn":
        settings = {name: settings[name] for name in ("vocab_size", "num_labels", "eos_token_id", "pad_token_id")}
    if model_type == "hf_gpt_seq2seq":
        settings["decoder_start_token_id"] = settings["bos_token_id"]
    torch.manual_seed(0)
    model = auto_class.from_config(AutoConfig.for_model(model_type, **settings)).eval()

    def more_inputs(batch):
        decoder = {"decoder_input_ids": batch["input_ids"].flip(0)} if model_type == "hf_gpt_seq2seq" else {}
        return decoder if one_label else {"use_cache": False, **decoder}

    # An LSTM steps over padding where it lies, which no traced graph can do.
    with_mask = model_type != "hf_lstm"
    difference = greatest_difference(model, tmp_path, more_inputs, with_mask)
    assert difference < TOLERANCE
    what = what if with_mask else f"{what}, rows without padding"
    keep(record_property, f"logits of the {what}", f"max difference {difference:.1e}")


def test_prefill_and_decode_give_the_greedy_tokens(reference, record_property, tmp_path):
    from transformers.exporters import OnnxConfig, OnnxExporter

    example = random_batch(2, 9, 3, reference.model.config.vocab_size)
    exported = OnnxExporter().export_for_generation(
        reference.model, example, OnnxConfig(dynamic=True), multi_token_decode=True
    )
    exported = read_back(exported, tmp_path)
    width = max(map(len, reference.prompt_ids))
    pad = reference.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in reference.prompt_ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in reference.prompt_ids])
    tokens, inputs, stage = [], {}, "prefill"
    for _ in range(NUM_NEW_TOKENS):
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        output = exported.runners[stage](input_ids=ids, attention_mask=mask, position_ids=positions, **inputs)
        ids = output.logits[:, -1:].argmax(-1)
        mask = torch.cat([mask, torch.ones_like(ids)], -1)
        inputs, stage = {"past_key_values": output.past_key_values}, "decode"
        tokens.append(ids)
    equal, total = count_equal(torch.cat(tokens, -1).tolist(), reference.greedy)
    assert equal == total
    keep(record_property, "greedy tokens by prefill and decode graphs, prompts padded", equal_tokens(equal, total))
