"""GGUF files of `hf-gpt convert` in llama.cpp, by node-llama-cpp: `make check-llama-cpp`."""

import json
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hf_gpt.conversion.checkpoint import convert
from hf_gpt.data.tokenizer import train_tokenizer
from tests.clients.records import equal_tokens, record
from tests.clients.reference import NUM_NEW_TOKENS, count_equal
from tests.conversion.conftest import LINEAR_ROPE, SIZES
from tests.real.fetch import model_folder


pytest.importorskip("gguf", reason="GGUF files need the extra gguf")

PACKAGES = Path(os.environ.get("NODE_PATH", Path(sys.prefix) / "node/node_modules"))
SCRIPTS = Path(__file__).parent
CLIENT = "llama.cpp, node-llama-cpp"
CORPUS = SCRIPTS.parents[1] / "hf_gpt/data/corpora/tinyshakespeare.txt"
# Every family that is written, with biases and scaled positions. llama.cpp's kernels want heads of 32.
MODELS = {
    "llama": {"rope_parameters": LINEAR_ROPE, "tie_word_embeddings": True},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": True},
    "arcee": {},
}
WRITTEN = [
    "1 12 123 1234567 3.14 20,000 x12y345 MMXXIV ½²٣٤५ⅷ",
    "don't I'LL we've 'S they'Re o'clock 'tis rock 'n' roll's",
    "  a   b\t\tc \n\n  d\r\n\r\ne   \u00a0\u2003x\u3000y\u200b",
    "😀🙂‍↔️👍🏽 naïve café e\u0301 Ünïcödé ÆØÅ",
    "今天天气很好，123年。日本語のテキスト 한국어",
    "<|endoftext|>a special token<|pad|> and <|no token|>",
    "def f(x):\n    return {'a': [1, 2]}  # ok?!\n\n\n\n\treturn --x;;\n",
    "a" * 200 + " " * 200 + "x" + "-" * 200 + "\n" * 100,
]


def texts(special):
    """Those, and many of random characters that Unicode has assigned, which llama.cpp knows the kinds of."""
    generator = random.Random(0)
    known = [chr(code) for code in range(1, 0x3000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    pieces = [*known, *map(chr, range(0x20, 0x7F)), *(" \n'0123456789" * 30), *special * 20]
    return WRITTEN + ["".join(generator.choices(pieces, k=40)) for _ in range(500)]


@pytest.fixture(scope="module")
def version():
    package = PACKAGES / "node-llama-cpp/package.json"
    if not package.is_file():
        pytest.skip("make check-llama-cpp installs node-llama-cpp")
    return json.loads(package.read_text())["version"]


def run(script, *arguments):
    environment = {**os.environ, "NODE_PATH": str(PACKAGES)}
    command = ["node", str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def greedy(weights, prompts, num_tokens=NUM_NEW_TOKENS):
    return run("llama_cpp.mjs", weights, num_tokens, json.dumps(prompts))


def test_greedy_tokens(converted, version, record_property, tmp_path):
    family, ours, folder = converted
    convert(folder, tmp_path / "model.gguf", quantize="f32")
    equal, total = count_equal(greedy(tmp_path / "model.gguf", ours.prompt_ids), ours.greedy)
    assert equal == total
    compared = f"greedy tokens of a checkpoint converted to {family}, as GGUF"
    record(record_property, CLIENT, "llama-cpp", compared, equal_tokens(equal, total), version=version)


@pytest.mark.parametrize("name", MODELS)
def test_every_layout_gives_the_same_tokens(name, version, tmp_path):
    family = name.split()[0]
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_size": 128, "intermediate_size": 96, "head_dim": 32}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **MODELS[name])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(tmp_path / "stock")
    train_tokenizer([CORPUS.read_text(encoding="utf-8")], SIZES["vocab_size"]).save_pretrained(tmp_path / "stock")
    convert(tmp_path / "stock", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "model.gguf")
    prompts = [[5, 6, 7, 8], [100, 200, 250], [42], [9] * 20, list(range(20, 60)), [11, 12]]
    # A model of random weights has near ties, and llama.cpp attends in fewer bits: no long answers.
    wanted, num_tokens = [], 8
    for prompt in prompts:
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": num_tokens, "do_sample": False, "eos_token_id": None}
        wanted.append(model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :].tolist())
    assert greedy(tmp_path / "model.gguf", prompts, num_tokens) == wanted


@pytest.mark.parametrize("vocab_size", [300, 4096])
def test_a_tokenizer_of_ours_gives_the_same_tokens(vocab_size, version, record_property, tmp_path):
    special = ["<|endoftext|>", "<|pad|>"]
    content = [CORPUS.read_text(encoding="utf-8"), *WRITTEN * 20]
    tokenizer = train_tokenizer(content, vocab_size)
    sizes = {**SIZES, "vocab_size": len(tokenizer)}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "model.gguf")
    every = texts(special)
    (tmp_path / "texts.json").write_text(json.dumps(every))
    found = run("llama_cpp_tokens.mjs", tmp_path / "model.gguf", tmp_path / "texts.json")
    opened = AutoTokenizer.from_pretrained(tmp_path / "model")
    wanted = [opened(text)["input_ids"] for text in every]
    differing = [text for text, ours, theirs in zip(every, wanted, found, strict=True) if ours != theirs]
    assert not differing
    total = sum(map(len, wanted))
    compared = f"tokens of {len(every)} texts by a tokenizer that was trained here, {len(tokenizer)} tokens"
    record(record_property, CLIENT, "llama-cpp", compared, equal_tokens(total, total), version=version)


def test_a_pretrained_model_answers_the_same(version, record_property, tmp_path):
    folder = model_folder("smollm2")
    if not folder.is_dir():
        pytest.skip("needs the pretrained model smollm2: make real-models")
    convert(next(folder.glob("*.gguf")), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "model.gguf")
    model, tokenizer = (kind.from_pretrained(tmp_path / "ours") for kind in (AutoModelForCausalLM, AutoTokenizer))
    every = texts(["<|im_start|>", "<|im_end|>"])
    (tmp_path / "texts.json").write_text(json.dumps(every))
    found = run("llama_cpp_tokens.mjs", tmp_path / "model.gguf", tmp_path / "texts.json")
    wanted = [tokenizer(text)["input_ids"] for text in every]
    assert found == wanted
    total = sum(map(len, wanted))
    name = "SmolLM2-135M-Instruct from GGUF and back"
    compared = f"tokens of {len(every)} texts, {name}"
    record(record_property, CLIENT, "llama-cpp", compared, equal_tokens(total, total), version=version)
    question = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=NUM_NEW_TOKENS, do_sample=False)[0, ids["input_ids"].shape[1] :]
    # llama.cpp goes on behind the token that ends the answer.
    theirs = greedy(tmp_path / "model.gguf", ids["input_ids"].tolist())[0][: len(answer)]
    equal, total = count_equal([theirs], [answer.tolist()])
    assert equal == total and "Paris" in tokenizer.decode(answer)
