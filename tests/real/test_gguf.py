"""SmolLM2-135M-Instruct from a GGUF file to a model of ours and back: logits, tokens, sizes."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from hf_gpt import convert
from tests.clients.records import record
from tests.real.fetch import REAL_MODELS


pytestmark = pytest.mark.real
MODEL, VERSION = "SmolLM2-135M-Instruct", REAL_MODELS["smollm2"].version
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
# Least share of the most likely tokens that stay, and the largest difference in units of the logits' deviation.
BOUNDS = {"f32": (1.0, 1e-6), "q8_0": (0.9, 0.05), "q4_1": (0.8, 0.2)}


@pytest.fixture(scope="module")
def from_gguf(smollm2_gguf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf") / "ours"
    convert(smollm2_gguf, folder)
    return folder


@pytest.fixture(scope="module")
def question(from_gguf):
    tokenizer = AutoTokenizer.from_pretrained(from_gguf)
    return tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)


def logits(model, question):
    with torch.no_grad():
        return model(**question).logits[0]


def test_logits_are_those_of_the_reader_of_transformers(smollm2, from_gguf, question, record_property):
    wanted = logits(AutoModelForCausalLM.from_pretrained(smollm2), question)
    found = logits(AutoModelForCausalLM.from_pretrained(from_gguf), question)
    difference = (wanted - found).abs().max().item()
    assert difference < 1e-4
    metric = f"largest difference {difference:.1e}"
    record(record_property, MODEL, "real", "logits after hf-gpt convert of a GGUF file", metric, version=VERSION)


def test_digits_are_cut_as_the_file_says(from_gguf):
    tokenizer = AutoTokenizer.from_pretrained(from_gguf)
    assert [tokenizer.decode([token]) for token in tokenizer("in 1789")["input_ids"]] == ["in", " ", *"1789"]


@pytest.mark.parametrize("quantize", BOUNDS)
def test_written_again(quantize, from_gguf, question, tmp_path, record_property):
    same, bound = BOUNDS[quantize]
    wanted = logits(AutoModelForCausalLM.from_pretrained(from_gguf), question)
    result = convert(from_gguf, tmp_path / "out.gguf", quantize=quantize)
    assert not result.notes and (tmp_path / "out.Modelfile").read_text().startswith("FROM ./out.gguf\nTEMPLATE")
    config = GgufConfig(gguf_file="out.gguf", dequantize=True)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="out.gguf", quantization_config=config)
    found = logits(again, question)
    error = ((found - wanted).pow(2).mean().sqrt() / wanted.std()).item()
    kept = (found.argmax(-1) == wanted.argmax(-1)).float().mean().item()
    size = (tmp_path / "out.gguf").stat().st_size / 1e6
    assert error <= bound and kept >= same
    metric = f"{error:.3f} of the logits' deviation, {size:.0f} MB"
    record(record_property, MODEL, "real", f"logits of the GGUF file in {quantize}", metric, version=VERSION)
