"""The command that is printed last works as it is printed."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hf_gpt.cli.main import main
from hf_gpt.cli.next_step import use_of_model


SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
SMALL = [f"--config_overrides={json.dumps(SHAPE)}", "--max_steps=2", "--report_to=none", "--save_strategy=no"]


def next_of(capsys, argv):
    """Runs a command; returns the one that it prints last."""
    assert main([*map(str, argv)]) == 0
    output = capsys.readouterr().out
    return output[output.index("\nnext ") :].removeprefix("\nnext").strip()


def works(command, *more):
    """Runs a printed command in a shell, with this Python for the program."""
    words = shlex.split(command)
    words = [sys.executable, "-m", "hf_gpt", *words[1:]] if Path(words[0]).name == "hf-gpt" else words
    process = subprocess.run([*words, *more], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture
def pretrained(tmp_path, corpus_file, capsys):
    options = ["--train_file", corpus_file, "--tokenizer_vocab_size", "300", "--max_length", "64", *SMALL]
    folder = tmp_path / "pre trained"
    following = next_of(capsys, ["pretrain", *options, "--sample_max_new_tokens=2", "--output_dir", folder])
    return folder, following


def test_after_pretraining_and_converting(pretrained, tmp_path, capsys):
    folder, following = pretrained
    assert "Once upon a time" in works(following, "--max_new_tokens", "4")
    following = next_of(capsys, ["convert", folder / "model", tmp_path / "converted"])
    assert "Once upon a time" in works(following, "--max_new_tokens", "4")


def test_after_a_tokenizer(tmp_path, corpus_file, capsys):
    following = next_of(
        capsys, ["tokenizer", "--train_file", corpus_file, "--vocab_size=300", "--output_dir", tmp_path / "a tokenizer"]
    )
    assert "1 document" in works(following, *SMALL, "--max_length=32", "--dry_run=true")


def test_after_a_discriminator(pretrained, tmp_path, corpus_file, capsys):
    folder, _ = pretrained
    options = ["--model_name_or_path", folder, "--train_file", corpus_file, "--discriminator=ngram_cnn"]
    options += ["--max_new_tokens=8", "--max_train_samples=60", "--num_train_epochs=1"]
    following = next_of(capsys, ["discriminator", *options, "--output_dir", tmp_path / "discriminator"])
    works(following, "--max_new_tokens", "4", "--num_candidates", "2")


@pytest.mark.parametrize("task", ["classification", "token_classification", "translation"])
def test_after_finetuning(task, tmp_path, capsys):
    options = ["--task", task, *SMALL, "--max_train_samples=40", "--max_eval_samples=8", "--output_dir"]
    following = next_of(capsys, ["finetune", *options, tmp_path / task])
    assert works(following)


def test_what_no_command_opens_has_no_next(tmp_path):
    assert use_of_model(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["HfGptForQuestionAnswering"]}))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert use_of_model(tmp_path) is None
