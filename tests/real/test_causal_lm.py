"""SmolLM2-135M-Instruct as a model of ours: conversion both ways, generation, chat."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_gpt import HfGptForCausalLM, convert, fast_generate
from tests.clients.records import equal_tokens, record
from tests.real.fetch import REAL_MODELS


pytestmark = pytest.mark.real
MODEL, VERSION = "SmolLM2-135M-Instruct", REAL_MODELS["smollm2"].version
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


@pytest.fixture(scope="module")
def tokenizer(converted):
    return AutoTokenizer.from_pretrained(converted)


@pytest.fixture(scope="module")
def ours(converted):
    return AutoModelForCausalLM.from_pretrained(converted)


@pytest.fixture(scope="module")
def question(tokenizer):
    return tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)


def test_logits_are_those_of_the_original(smollm2, ours, question, record_property):
    original = AutoModelForCausalLM.from_pretrained(smollm2)
    assert isinstance(ours, HfGptForCausalLM)
    with torch.no_grad():
        difference = (ours(**question).logits - original(**question).logits).abs().max().item()
    assert difference < 1e-4
    metric = f"largest difference {difference:.1e}"
    record(record_property, MODEL, "real", "logits after hf-gpt convert", metric, version=VERSION)


def test_conversion_back_gives_the_weights_bit_by_bit(smollm2, converted, tmp_path):
    convert(converted, tmp_path / "back", to="llama")
    first, second = (load_file(folder / "model.safetensors") for folder in (smollm2, tmp_path / "back"))
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_fast_generate_writes_the_tokens_of_generate_and_an_answer(ours, tokenizer, question, record_property):
    options = {"max_new_tokens": 48, "do_sample": False}
    plain = ours.generate(**question, **options)
    fast = ours.generate(**question, **options, custom_generate=fast_generate)
    answer = tokenizer.decode(plain[0, question["input_ids"].shape[1] :], skip_special_tokens=True)
    assert torch.equal(plain, fast) and "Paris" in answer
    metric = equal_tokens(int((plain == fast).sum()), plain.numel())
    record(record_property, MODEL, "real", "fast_generate against generate", metric, version=VERSION)
