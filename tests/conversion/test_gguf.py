"""Models become GGUF files and come back; tokenizers keep what they say, or are refused."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from hf_gpt.cli.main import main
from hf_gpt.conversion import gguf_file
from hf_gpt.conversion.checkpoint import convert
from hf_gpt.errors import ConversionError
from tests.conversion.conftest import MODELS, SIZES, VOCAB


gguf = pytest.importorskip("gguf", reason="GGUF files need the extra gguf")

# What llama.cpp has an architecture for; arcee is written, but Transformers cannot read it.
WRITTEN = {
    "gpt2": "gpt2",
    "llama-bias": "llama",
    "llama-tied": "llama",
    "qwen2-plain": "qwen2",
    "qwen3": "qwen3",
    "arcee": "arcee",
}


@pytest.fixture(scope="module", autouse=True)
def _more_models():
    MODELS["qwen2-plain"] = ("qwen2", {**SIZES, "tie_word_embeddings": True})
    yield
    del MODELS["qwen2-plain"]


def read(path):
    return gguf.GGUFReader(path)


def value(reader, key):
    return reader.get_field(key).contents()


def weights(folder):
    return load_file(folder / "model.safetensors")


def logits(model):
    ids = torch.arange(2, 42).reshape(2, 20)
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.parametrize("name", WRITTEN)
def test_a_model_goes_to_gguf_and_comes_back_bit_by_bit(name, stock, tmp_path, tokenizer):
    model, folder = stock(name)
    tokenizer.save_pretrained(folder)
    convert(folder, tmp_path / "ours")
    result = convert(tmp_path / "ours", tmp_path / "out.gguf")
    assert result.target_type == WRITTEN[name] and result.num_parameters >= model.num_parameters()
    reader = read(tmp_path / "out.gguf")
    assert value(reader, "general.architecture") == WRITTEN[name]
    assert {path.name for path in tmp_path.glob("*out*")} == {"out.Modelfile", "out.gguf"}
    if WRITTEN[name] not in GGUF_CONFIG_MAPPING:
        return
    convert(tmp_path / "out.gguf", tmp_path / "again")
    first, second = weights(tmp_path / "ours"), weights(tmp_path / "again")
    assert set(first) <= set(second)
    # Biases that only the layout has are zeros.
    assert all(torch.equal(second[key], first.get(key, torch.zeros_like(second[key]))) for key in second)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert (logits(again) - logits(model)).abs().max() < 1e-5
    opened = AutoTokenizer.from_pretrained(tmp_path / "again")
    text = "don't  jump 12345 times\n\n\tnaïve 中文 🙂 <|endoftext|> "
    assert opened(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert opened.chat_template == tokenizer.chat_template and opened.eos_token == tokenizer.eos_token


def test_transformers_reads_the_file_to_the_same_logits(stock, tmp_path, tokenizer):
    MODELS["llama-plain"] = ("llama", {**SIZES, "tie_word_embeddings": True})
    model, folder = stock("llama-plain")
    del MODELS["llama-plain"]
    tokenizer.save_pretrained(folder)
    convert(folder, tmp_path / "out.gguf", to="llama", quantize="f32")
    config = GgufConfig(gguf_file="out.gguf", dequantize=True)
    read_again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="out.gguf", quantization_config=config)
    assert torch.equal(logits(read_again), logits(model))
    text = "The quick 12345 foxes' cafés\n"
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="out.gguf")
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


# Steps between values of a block of 32 with one scale of 16 bits.
@pytest.mark.parametrize(
    ("quantize", "error"), [("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 0.02), ("q5_1", 0.1), ("q5_0", 0.1), ("q4_0", 0.2)]
)
def test_quantized_weights_are_near(quantize, error, stock, tmp_path):
    MODELS["wide"] = ("qwen3", {**SIZES, "head_dim": 16, "intermediate_size": 64})
    _, folder = stock("wide")
    del MODELS["wide"]
    convert(folder, tmp_path / "out.gguf", quantize=quantize, tokenizer=False)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read(tmp_path / "out.gguf").tensors}
    assert kinds["blk.0.ffn_up.weight"] == quantize.upper() and kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["output.weight"] == ("Q8_0" if quantize.startswith(("q4", "q5")) else quantize.upper())
    convert(tmp_path / "out.gguf", tmp_path / "again", "qwen3", tokenizer=False)
    first, second = weights(folder), weights(tmp_path / "again")
    for name, tensor in first.items():
        difference = (second[name].float() - tensor).norm() / tensor.norm()
        assert difference <= error, name
        assert second[name].dtype == {"f16": torch.float16, "bf16": torch.bfloat16}.get(
            quantize if tensor.ndim == 2 else "", torch.float32
        )


def test_ids_alone_where_no_tokenizer_is_wanted(stock, tmp_path):
    _, folder = stock("qwen3")
    convert(folder, tmp_path / "out.gguf", tokenizer=False)
    assert value(read(tmp_path / "out.gguf"), "tokenizer.ggml.model") == "none"
    assert not (tmp_path / "out.Modelfile").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mistral", {"to": "mistral"}, "sliding window"),
        ("llama", {"to": "llama"}, "rope_type='llama3'"),
        ("qwen2", {}, "rope_type='yarn'"),
        ("gpt2-inner", {"to": "gpt2"}, "hidden_act='relu'"),
        ("qwen3", {"to": "llama"}, "RMSNorm of queries and keys"),
        ("qwen3", {"quantize": "q4_k"}, "choose one of f32, f16, bf16, q8_0"),
    ],
)
def test_what_gguf_cannot_say(name, options, message, stock, tmp_path):
    _, folder = stock(name)
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", tokenizer=False, **options)
    assert not list(tmp_path.glob("*out*"))


def test_our_default_form_is_refused_with_the_one_that_goes(tmp_path):
    from transformers import AutoConfig

    sizes = {**SIZES, "num_key_value_heads": 4}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("hf_gpt", **sizes)).save_pretrained(tmp_path / "ours")
    with pytest.raises(
        ConversionError, match=r"(?s)RMSNorm of queries and keys.*hidden_act='relu2'.*use_qk_norm=false"
    ):
        convert(tmp_path / "ours", tmp_path / "out.gguf")
    plain = AutoConfig.for_model("hf_gpt", **sizes, use_qk_norm=False)
    AutoModelForCausalLM.from_config(plain).save_pretrained(tmp_path / "plain")
    assert convert(tmp_path / "plain", tmp_path / "out.gguf", tokenizer=False).target_type == "arcee"


def test_values_too_large_for_f16_are_refused(stock, tmp_path):
    model, folder = stock("llama-tied")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    model.save_pretrained(folder)
    with pytest.raises(ConversionError, match="bf16 or f32"):
        convert(folder, tmp_path / "out.gguf", quantize="f16", tokenizer=False)
    assert not list(tmp_path.glob("*out*"))


def test_a_failure_while_writing_keeps_the_old_file(stock, tmp_path, monkeypatch):
    _, folder = stock("qwen3")
    convert(folder, tmp_path / "out.gguf", tokenizer=False)
    before = (tmp_path / "out.gguf").read_bytes()
    with pytest.raises(ConversionError, match="exists"):
        convert(folder, tmp_path / "out.gguf", tokenizer=False)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf_file, "to_gguf", full)
    with pytest.raises(OSError, match="space"):
        convert(folder, tmp_path / "out.gguf", tokenizer=False, overwrite=True)
    assert list(tmp_path.glob("*out*")) == [tmp_path / "out.gguf"]
    assert (tmp_path / "out.gguf").read_bytes() == before


def rewritten(path, architecture, *, extra=None, drop=0):
    """A small file that says it is of another architecture, or holds a weight too much, or is cut off."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, number in {
        "context_length": 64,
        "embedding_length": 32,
        "block_count": 1,
        "feed_forward_length": 40,
    }.items():
        getattr(writer, f"add_{name}")(number)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    for name in ["token_embd.weight", *([extra] if extra else [])]:
        writer.add_tensor(name, torch.zeros(VOCAB, 32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if drop:
        path.write_bytes(path.read_bytes()[:-drop])
    return path


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ("gemma3", {}, "the architecture gemma3, which has no counterpart here.*gpt2, llama, qwen2, qwen3"),
        ("llama", {"extra": "rope_freqs.weight"}, "positions of Llama 3"),
        ("llama", {"extra": "blk.0.attn_sinks.weight"}, "no place in a llama model, such as blk.0.attn_sinks"),
        ("llama", {}, "weights are missing"),
        ("llama", {"drop": 2000}, "damaged or cut off"),
    ],
)
def test_files_that_are_refused_by_name(architecture, change, message, tmp_path, capsys):
    path = rewritten(tmp_path / "in.gguf", architecture, **change)
    assert main(["convert", str(path), str(tmp_path / "out"), "--no_tokenizer"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error and not (tmp_path / "out").exists()


def test_the_command_says_what_comes_next(stock, tmp_path, tokenizer, capsys):
    _, folder = stock("llama-tied")
    tokenizer.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    assert main(["convert", str(folder), str(tmp_path / "out.gguf"), "--quantize", "q8_0"]) == 0
    assert "ollama create out -f" in capsys.readouterr().out
    lines = (tmp_path / "out.Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./out.gguf"
    assert lines[1] == (
        'TEMPLATE """{{ range .Messages }}{{ if eq .Role "system" }}<|system|>{{ .Content }}<|endoftext|>'
        '{{ else if eq .Role "user" }}<|user|>{{ .Content }}<|endoftext|>'
        '{{ else if eq .Role "assistant" }}<|assistant|>{{ .Content }}<|endoftext|>{{ end }}{{ end }}<|assistant|>"""'
    )
    sampled = ["PARAMETER temperature 0.5", "PARAMETER top_k 7"]
    assert lines[2:] == ['PARAMETER stop "<|endoftext|>"', *sampled, "PARAMETER num_ctx 64"]
    assert main(["convert", str(folder), str(tmp_path / "ours"), "--quantize", "q8_0"]) == 2
    assert "let the destination end in .gguf" in capsys.readouterr().err


def test_metadata_names_pattern_and_special_tokens(stock, tmp_path, tokenizer):
    _, folder = stock("qwen3")
    tokenizer.save_pretrained(folder)
    convert(folder, tmp_path / "out.gguf")
    reader = read(tmp_path / "out.gguf")
    assert value(reader, "tokenizer.ggml.model") == "gpt2" and value(reader, "tokenizer.ggml.pre") == "qwen2"
    assert value(reader, "tokenizer.ggml.eos_token_id") == tokenizer.eos_token_id
    assert value(reader, "tokenizer.ggml.add_bos_token") is False
    types = value(reader, "tokenizer.ggml.token_type")
    assert types[0] == types[1] == 3 and set(types[2:]) <= {1, 5} and len(types) == VOCAB
    assert value(reader, "tokenizer.chat_template") == tokenizer.chat_template
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert value(reader, "tokenizer.ggml.merges") == [" ".join(pair) for pair in merges]
