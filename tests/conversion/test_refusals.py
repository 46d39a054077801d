"""What cannot be converted is refused by name, and nothing is left behind."""

import json
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.cli.main import main
from hf_gpt.conversion.checkpoint import convert
from hf_gpt.conversion.families import config_from_ours
from hf_gpt.errors import ConversionError
from tests.conversion.conftest import SIZES


LLAMA = {"hidden_act": "silu", "is_gated_act": True, "use_qk_norm": False}
SHAPE = {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}


@pytest.mark.parametrize(
    ("target", "settings", "named"),
    [
        ("llama", {}, ["squared ReLU", "hidden_act='relu2'", "use_qk_norm=True", "no counterpart in llama"]),
        ("llama", {**LLAMA, "sliding_window": 4}, ["a sliding window", "llama"]),
        ("llama", {**LLAMA, "norm_type": "layernorm"}, ["LayerNorm", "norm_type='layernorm'"]),
        ("llama", {**LLAMA, "position_embedding_type": "learned"}, ["learned position embeddings"]),
        ("llama", {**LLAMA, "final_logit_softcapping": 30.0}, ["final_logit_softcapping=30.0"]),
        ("llama", {**LLAMA, "is_causal": False}, ["is_causal=False"]),
        ("mistral", {**LLAMA, "attention_bias": True}, ["attention_bias=True"]),
        (
            "mistral",
            {**LLAMA, "sliding_window": 4, "layer_types": ["full_attention"] * 2 + ["sliding_attention"]},
            ["layer_types"],
        ),
        ("qwen2", {**LLAMA, "mlp_bias": True}, ["biases in the MLP", "mlp_bias=True"]),
        ("qwen3", LLAMA, ["use_qk_norm=False", "qwen3"]),
        ("gpt2", {"num_key_value_heads": 2}, ["num_key_value_heads=2", "use_qk_norm=True", "rotary"]),
    ],
)
def test_what_a_target_cannot_express(target, settings, named):
    with pytest.raises(ConversionError) as raised:
        config_from_ours(HfGptConfig(**{**SHAPE, **settings}), target)
    for words in named:
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True of gpt2"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
        ("llama", {"quantization_config": {"quant_method": "awq"}}, "quantized"),
        ("llama", {"hidden_size": 48}, "shape"),
        ("llama", {"num_hidden_layers": 4}, "9 weights are missing, such as model.layers.3"),
        ("llama", {"num_hidden_layers": 2}, "9 weights have no place"),
        ("llama", {"tie_word_embeddings": True}, "tie_word_embeddings is true, but lm_head.weight"),
        ("llama", {"model_type": "bert"}, "'bert' cannot be converted"),
        ("llama", {"model_type": "no-such-model"}, "no-such-model"),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}, "rope_scaling": None}, "rope"),
    ],
)
def test_a_source_that_is_not_what_it_says(name, change, message, stock, tmp_path):
    _, folder = stock(name)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_classifier_is_no_language_model(stock, tmp_path):
    _, folder = stock("llama")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.save_pretrained(tmp_path / "classifier")
    with pytest.raises(ConversionError, match=r"lm_head\.weight"):
        convert(tmp_path / "classifier", tmp_path / "ours")


def test_damaged_weights(stock, tmp_path):
    _, folder = stock("llama")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConversionError, match="damaged or cut off"):
        convert(folder, tmp_path / "ours")
    path.unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ConversionError, match="a pickle, which can run code"):
        convert(folder, tmp_path / "ours")


def test_an_index_cannot_lead_out_of_the_folder(stock, tmp_path):
    _, folder = stock("llama", max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    for file in ("../other.safetensors", "/etc/passwd", 7):
        content["weight_map"]["lm_head.weight"] = file
        index.write_text(json.dumps(content))
        with pytest.raises(ConversionError, match="no safetensors file of this folder"):
            convert(folder, tmp_path / "ours")


def test_an_existing_folder_is_replaced_only_when_asked_and_only_a_checkpoint(stock, tmp_path, capsys):
    _, folder = stock("llama")
    target = tmp_path / "ours"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    argv = ["convert", str(folder), str(target)]
    assert main(argv) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 2 and "holds no checkpoint" in capsys.readouterr().err
    assert (target / "thesis.txt").read_text() == "years of work"
    (target / "thesis.txt").unlink()
    assert main(argv) == 0 and "llama -> hf_gpt, 40,160 parameters in model.safetensors" in capsys.readouterr().out
    assert main(argv) == 2 and main([*argv, "--overwrite"]) == 0
    for other in (folder, tmp_path):
        assert main(["convert", str(folder), str(other), "--overwrite"]) == 2
        assert "holds the source" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "x")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_failure_while_writing_leaves_nothing(stock, tmp_path, monkeypatch):
    _, folder = stock("llama")
    calls = []

    def fail(tensors, path, metadata):
        save_file(tensors, path, metadata)
        calls.append(path)
        if len(calls) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr("hf_gpt.conversion.weights.save_file", fail)
    with pytest.raises(OSError, match="No space"):
        convert(folder, tmp_path / "ours", max_shard_size="20KB")
    assert len(calls) == 2 and [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_shards_hold_one_file_at_a_time(stock, tmp_path, monkeypatch):
    model, folder = stock("gpt2", max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    alive, sizes = [], []

    def watch(tensors, path, metadata):
        assert not any(reference() is not None for reference in alive)
        alive.extend(weakref.ref(tensor) for tensor in tensors.values())
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))
        save_file(tensors, path, metadata)

    monkeypatch.setattr("hf_gpt.conversion.weights.save_file", watch)
    convert(folder, tmp_path / "ours", max_shard_size="25KB")
    # No weight is larger than the vocabulary's.
    assert len(sizes) > 4 and max(sizes) <= 300 * 32 * 4 and all(size <= 25_000 for size in sizes[1:])
    index = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / "ours" / file)
    assert index["metadata"]["total_size"] == model.num_parameters() * 4
    ids = torch.arange(20).reshape(1, 20)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert (ours(ids).logits - model(ids).logits).abs().max() <= 1e-5


def test_special_tokens_outside_the_vocabulary_are_left_out_and_told(stock, tmp_path):
    _, folder = stock("llama")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "pad_token_id": 300, "eos_token_id": [0, 999]}))
    result = convert(folder, tmp_path / "ours")
    config = HfGptConfig.from_pretrained(tmp_path / "ours")
    assert (config.pad_token_id, config.eos_token_id) == (None, [0])
    assert any("pad_token_id=300" in note for note in result.notes)


def test_dropout_without_a_counterpart_is_told(tmp_path):
    torch.manual_seed(0)
    HfGptForCausalLM(HfGptConfig(**{**SHAPE, **LLAMA, "hidden_dropout": 0.1})).save_pretrained(tmp_path / "ours")
    result = convert(tmp_path / "ours", tmp_path / "llama", to="llama")
    assert any("hidden_dropout=0.1" in note for note in result.notes)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "qwen2"])
@pytest.mark.parametrize("number", [2**31, 10**30])
def test_layers_that_no_memory_holds(name, number, stock, tmp_path):
    _, folder = stock(name)
    content = json.loads((folder / "config.json").read_text())
    content["n_layer" if name == "gpt2" else "num_hidden_layers"] = number
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConversionError, match=f"={number} is more than 10,000"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
