"""The scripts in training/ run to the end, and what they leave can be opened."""

import importlib
import math
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import hf_gpt  # noqa: F401
from hf_gpt.data.corpus import CORPORA


FOLDER = Path(__file__).parents[2] / "training"
# What each script is given beside its folder, so that it takes seconds.
OPTIONS = {
    "pretrain": ["--max_steps", "2", "--batch_size", "2", "--max_length", "32", "--vocab_size", "300"],
    "finetune": ["--max_steps", "2"],
    "adversarial": ["--max_steps", "4"],
    "discriminator": ["--max_steps", "2", "--epochs", "1", "--num_texts", "40"],
    "distill": ["--max_steps", "4", "--teacher_steps", "2", "--num_prompts", "40"],
    "peft_lora": ["--max_steps", "2", "--base_steps", "2", "--rank", "2"],
    "plain_trainer": ["--max_steps", "2"],
    "accelerate_loop": ["--max_steps", "2", "--batch_size", "2", "--max_length", "32"],
}
LANGUAGE_MODELS = ["pretrain", "adversarial", "distill", "plain_trainer", "accelerate_loop"]


@pytest.fixture(autouse=True)
def small_corpus(monkeypatch, tmp_path):
    """The built-in corpus is its beginning alone, of the same name."""
    text = (CORPORA / "tinyshakespeare.txt").read_text(encoding="utf-8")[:40_000]
    folder = tmp_path / "corpora"
    folder.mkdir()
    (folder / "tinyshakespeare.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr("hf_gpt.data.corpus.CORPORA", folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory, corpus_text):
    """The folder of a model that other scripts go on from."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "corpus.txt").write_text(corpus_text, encoding="utf-8")
    # Long enough for the rows of every other script.
    options = [*OPTIONS["pretrain"], "--train_file", str(folder / "corpus.txt"), "--max_length", "128"]
    importlib.import_module("training.pretrain").main([*options, "--output_dir", str(folder / "model")])
    return str(folder / "model")


def run(name, folder, capsys, *more):
    """Runs a script; returns what it printed."""
    script = importlib.import_module(f"training.{name}")
    assert script.main([*OPTIONS[name], "--output_dir", str(folder), *more]) is None
    return capsys.readouterr().out


def check_language_model(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("ROMEO:\n", return_tensors="pt")
    loss = model(**ids, labels=ids.input_ids).loss.item()
    # Two steps from random weights: about as unsure as one that guesses.
    assert 0 < loss < 2 * math.log(len(tokenizer))


def check_classifier(folder, num_labels):
    model, tokenizer = (Auto.from_pretrained(folder) for Auto in (AutoModelForSequenceClassification, AutoTokenizer))
    assert model(**tokenizer("All:\nSpeak, speak.", return_tensors="pt")).logits.shape == (1, num_labels)
    return model


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_script_leaves_a_language_model(name, tmp_path, capsys):
    folder = tmp_path / "out"
    printed = run(name, folder, capsys)
    check_language_model(folder)
    assert f"saved in {folder}" in printed and ("sample:" in printed or "student:" in printed)
    if name in ("adversarial", "distill"):
        check_classifier(folder / "discriminator", 1)
        assert "of 4 steps" in printed


def test_finetuning_leaves_a_classifier_with_the_names_of_its_classes(tmp_path, capsys):
    printed = run("finetune", tmp_path / "out", capsys)
    assert check_classifier(tmp_path / "out", 2).config.id2label == {0: "de", 1: "en"}
    assert "accuracy on 24 held-out texts" in printed


def test_finetuning_reads_a_file_and_goes_on_from_a_checkpoint(tmp_path, capsys, base):
    rows = [f'{{"text": "number {number}", "label": "{"odd" if number % 2 else "even"}"}}' for number in range(16)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    more = ["--train_file", str(tmp_path / "rows.jsonl"), "--model_name_or_path", base]
    run("finetune", tmp_path / "out", capsys, *more)
    assert check_classifier(tmp_path / "out", 2).config.id2label == {0: "even", 1: "odd"}


def test_the_critic_is_saved_and_chooses_texts(tmp_path, capsys):
    printed = run("discriminator", tmp_path / "out", capsys)
    check_classifier(tmp_path / "out", 1)
    assert "AUC on unseen texts" in printed
    assert printed.count("plain, score") == printed.count("guided, score") == 3


def test_the_adapter_is_saved_without_the_model(tmp_path, capsys):
    from peft import AutoPeftModelForCausalLM

    printed = run("peft_lora", tmp_path / "out", capsys)
    assert "trainable params" in printed and "sample:\nAnna: Will you" in printed
    size = (tmp_path / "out" / "adapter_model.safetensors").stat().st_size
    assert size < (tmp_path / "out" / "base" / "model.safetensors").stat().st_size / 10
    adapted = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    assert any("lora_B" in name and weight.abs().sum() > 0 for name, weight in adapted.named_parameters())


@pytest.mark.parametrize(
    "name", ["accelerate_loop", "adversarial", "discriminator", "distill", "peft_lora", "plain_trainer"]
)
def test_a_script_goes_on_from_a_checkpoint(name, tmp_path, capsys, base):
    assert "saved in" in run(name, tmp_path / "out", capsys, "--model_name_or_path", base)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_script_is_short_and_explains_itself(name, capsys):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    with pytest.raises(SystemExit) as ending:
        importlib.import_module(f"training.{name}").main(["--help"])
    printed = capsys.readouterr().out
    assert ending.value.code == 0
    assert f"python training/{name}.py" in printed and "--max_steps" in printed and "--output_dir" in printed


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_script_takes_no_part_of_an_option(name, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"training.{name}").main(["--output", "runs"])
    assert "unrecognized arguments: --output runs" in capsys.readouterr().err


def test_the_guide_names_every_script():
    guide = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(path.name in guide for path in FOLDER.glob("*.py"))
    assert {path.stem for path in FOLDER.glob("*.py")} == {*OPTIONS, "trl_grpo"}
