"""Files of a wrong form, which others wrote or a disk cut short: a sentence and status 2, before any work."""

import gzip
import json
import shutil

import pytest
import yaml

from hf_gpt.cli.main import main
from hf_gpt.errors import ConfigError
from hf_gpt.evaluation.tasks.registry import read_task


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tokenizer):
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("good") / "model"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model("hf_gpt", vocab_size=320, max_position_embeddings=32, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def refused(capsys, *argv):
    """The one line that a command ends with."""
    try:
        status = main([str(part) for part in argv])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err.strip().splitlines()
    assert status == 2, error
    assert sum(line.startswith("error: ") for line in error) == 1, error
    return error[-1]


def entry(file, **values):
    def change(folder):
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def text(file, content):
    return lambda folder: (folder / file).write_text(content)


WRONG = {
    "a tokenizer that is a list": text("tokenizer.json", "[1, 2]"),
    "a tokenizer of nothing": text("tokenizer.json", "{}"),
    "a tokenizer cut short": text("tokenizer.json", '{"version": "1.0", "trunc'),
    "a tokenizer without a model": entry("tokenizer.json", model="x"),
    "tokenizer settings that are a list": text("tokenizer_config.json", "[]"),
    "a special token that is a number": entry("tokenizer_config.json", eos_token=5),
    "a tokenizer's class that is a number": entry("tokenizer_config.json", tokenizer_class=7),
    "a config that is a list": text("config.json", "[]"),
    "a width that is a word": entry("config.json", hidden_size="x"),
    "a width that is a list": entry("config.json", hidden_size=[1]),
    "half a layer": entry("config.json", num_hidden_layers=1.5),
    "another number of tokens": entry("config.json", vocab_size=2**31),
    "less than no tokens": entry("config.json", vocab_size=-1),
    "an activation that is a number": entry("config.json", hidden_act=3),
    "RoPE that is a list": entry("config.json", rope_parameters=[1]),
    "weights of another width": entry("config.json", hidden_size=32),
    "weights of fewer layers": entry("config.json", num_hidden_layers=3),
    "generation settings that are a list": text("generation_config.json", "[]"),
    "weights that are none": text("model.safetensors", "junk"),
}


@pytest.mark.parametrize("name", WRONG)
def test_checkpoints_of_a_wrong_form(name, checkpoint, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    WRONG[name](folder)
    assert str(folder) in refused(capsys, "generate", folder, "the", "--max_new_tokens", 1)
    (tmp_path / "t.txt").write_text("the cat sat " * 200)
    run = ("--train_file", tmp_path / "t.txt", "--max_length", 16, "--max_steps", 1, "--output_dir", tmp_path / "run")
    refused(capsys, "pretrain", "--model_name_or_path", folder, *run)


@pytest.mark.parametrize("ending", ["txt", "jsonl"])
def test_a_packed_file_that_was_cut_short(ending, tmp_path, capsys):
    path = tmp_path / f"text.{ending}.gz"
    content = b'{"text": "the cat"}\n' if ending == "jsonl" else b"the cat sat\n"
    path.write_bytes(gzip.compress(content * 100)[:40])
    assert str(path) in refused(capsys, "pretrain", "--train_file", path, "--output_dir", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max_length", 10**9), "--max_length must be at least 1 and at most 16,777,216"),
        (("--tokenizer_vocab_size", 2**31), "--tokenizer_vocab_size must be"),
        (("--config_overrides", f"vocab_size={2**31}"), "vocab_size is 2,147,483,648"),
        (("--config_overrides", "hidden_size=8388608,num_attention_heads=8"), "takes more than"),
    ],
)
def test_sizes_that_no_machine_has(options, words, tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat " * 100)
    common = ("--tokenizer_vocab_size", 300) if "--tokenizer_vocab_size" not in options else ()
    argv = ("pretrain", "--train_file", path, "--output_dir", tmp_path / "run", "--max_steps", 1, *common, *options)
    assert words in refused(capsys, *argv)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": [1, 2]},
        {"learning_rate": [0.1]},
        {"learning_rate": {"a": 1}},
        {"output_dir": ["a"]},
        {"config_overrides": [1]},
        {"config_overrides": {"hidden_size": [3]}},
        {"config_overrides": {"hidden_size": "abc"}},
        {"preset": 3},
        {"train_file": 3},
    ],
)
def test_recipes_of_a_wrong_form(wrong, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("the cat sat on the mat " * 100)
    recipe = {"train_file": "text.txt", "max_length": 16, "tokenizer_vocab_size": 300, "max_steps": 1, **wrong}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert refused(capsys, "pretrain", "--config", "recipe.yaml")


@pytest.mark.parametrize(
    "wrong",
    [
        {"file": ["a", 3]},
        {"file": {"a": 1}},
        {"samples": "many"},
        {"samples": [1, 2]},
        {"samples": True},
        {"max_length": [1]},
        {"temperature": "hot"},
        {"top_k": 1.5},
        {"prompt": [1]},
        {"stop": {"a": 1}},
        {"split": [1]},
    ],
)
def test_tasks_of_a_wrong_form(wrong, tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump({"kind": "unconditional", "file": "t.txt", **wrong}))
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be a"):
        read_task(path)


def test_a_file_of_a_task_that_is_a_number_is_a_name(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text("kind: unconditional\nfile: 3\n")
    assert read_task(path).file == "3"
