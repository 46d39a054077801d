import json
import os
import re
import signal

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from hf_gpt.cli import generate as generate
from hf_gpt.cli.pretrain import main
from hf_gpt.training.monitoring import reload_check
from hf_gpt.training.trainer import HfGptTrainer
from tests.fine_tuning import called_here


TINY = {
    "config_overrides": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "tokenizer_vocab_size": 300,
    "max_length": 32,
    "per_device_train_batch_size": 4,
    "max_steps": 6,
    "logging_steps": 2,
    "save_strategy": "no",
    "eval_strategy": "steps",
    "eval_steps": 3,
    "sample_prompts": ["First Citizen:\n", ""],
    "sample_max_new_tokens": 8,
}


@pytest.fixture
def recipe(tmp_path, corpus_file):
    """Writes a recipe for a run of seconds and returns its path."""

    def write(name="tiny", **changes):
        path = tmp_path / f"{name}.yaml"
        settings = {**TINY, "train_file": [str(corpus_file)], "output_dir": str(tmp_path / "run"), **changes}
        path.write_text(yaml.safe_dump(settings))
        return str(path)

    return write


@pytest.fixture
def in_process(monkeypatch):
    """Runs the check of the reloaded checkpoint in this process, which saves the start of another."""
    monkeypatch.setattr(reload_check, "in_fresh_process", called_here)


def weights(path):
    return AutoModelForCausalLM.from_pretrained(path).state_dict()


def test_a_run_from_text_to_report(recipe, tmp_path, capsys):
    assert main(["--config", recipe()]) == 0
    run = tmp_path / "run"
    assert sorted(path.name for path in run.iterdir()) == ["model", "recipe.yaml", "report.html"]

    output = capsys.readouterr()
    printed = dict(
        line.split(maxsplit=1) for line in output.out.splitlines() if line.startswith(("checkpoint", "report"))
    )
    assert printed == {"checkpoint": str(run / "model"), "report": str(run / "report.html")}
    assert "----- prompt 'First Citizen:\\n' -----\nFirst Citizen:\n" in output.out
    assert "step 6/6  validation loss" in output.err

    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert type(model).__name__ == "HfGptForCausalLM" and model.config.vocab_size == 320
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id == model.config.pad_token_id
    assert GenerationConfig.from_pretrained(run / "model").do_sample is True

    # The figure is the fresh process's, and it is the score that the trainer measured before it saved.
    line = next(line for line in output.out.splitlines() if line.startswith("bits per byte"))
    fresh, trained = float(line.split()[3]), float(line.split("(")[1].split()[0])
    assert fresh == pytest.approx(trained, abs=1e-4) and 1 < fresh < 9
    report = (run / "report.html").read_text()
    assert f"{fresh:.4f}" in report and "First Citizen" in report

    settings = yaml.safe_load((run / "recipe.yaml").read_text())
    assert settings["max_steps"] == 6 and settings["config_overrides"] == TINY["config_overrides"]

    # Another run in the same folder would spoil this one.
    assert main(["--config", recipe()]) == 2
    assert "--overwrite_output_dir" in capsys.readouterr().err

    assert generate.main([str(run), "First Citizen:", "--seed", "1", "--max_new_tokens", "5"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("First Citizen:")
    assert generate.main([str(run), "First Citizen:", "--seed", "1", "--max_new_tokens", "5"]) == 0
    assert capsys.readouterr().out == first


def test_ctrl_c_saves_and_resume_equals_a_straight_run(recipe, tmp_path, monkeypatch, capsys, in_process):
    straight = recipe("straight", output_dir=str(tmp_path / "straight"))
    assert main(["--config", straight]) == 0

    original, handler = HfGptTrainer.training_step, signal.getsignal(signal.SIGINT)

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(HfGptTrainer, "training_step", interrupted)
    assert main(["--config", recipe()]) == 130
    monkeypatch.setattr(HfGptTrainer, "training_step", original)
    assert signal.getsignal(signal.SIGINT) is handler
    output = capsys.readouterr()
    assert "saving a checkpoint" in output.err and "Stopped at step 3 of 6" in output.out
    assert (tmp_path / "run" / "checkpoint-3").is_dir() and not (tmp_path / "run" / "model").exists()

    command = output.out.splitlines()[-1].split()
    assert command[0].endswith("hf-gpt") and command[1] == "pretrain"
    assert main(command[2:]) == 0
    expected = weights(tmp_path / "straight" / "model")
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights(tmp_path / "run" / "model").items())
    # What it says of tokens and time is of the steps since then.
    reports = [(tmp_path / name / "report.html").read_text() for name in ("run", "straight")]
    assert ["3 of 6 steps, since it was resumed" in report for report in reports] == [True, False]


def test_dry_run_leaves_nothing(recipe, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    path = recipe()
    assert main(["--config", path, "--dry_run"]) == 0
    assert sorted([*before, tmp_path / "tiny.yaml"]) == sorted(tmp_path.iterdir())
    output = capsys.readouterr().out
    assert "6 steps of 4 rows of 32 tokens" in output and "tokens/s" in output and "memory" in output


def test_any_architecture_and_documents(recipe, tmp_path, corpus_text, capsys, in_process):
    documents = tmp_path / "documents.jsonl"
    documents.write_text("".join(json.dumps({"text": part}) + "\n" for part in corpus_text.split("\n\n")))
    path = recipe(train_file=[str(documents)], model_type="llama", optimizer="adamw", packing_strategy="sequential")
    assert main(["--config", path]) == 0
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["model_type"] == "llama"


def test_going_on_from_a_checkpoint(recipe, tmp_path, in_process, capsys):
    assert main(["--config", recipe(output_dir=str(tmp_path / "first"))]) == 0
    further = recipe(model_name_or_path=str(tmp_path / "first"), config_overrides=None)
    assert main(["--config", further]) == 0
    first, second = ((tmp_path / name / "model" / "tokenizer.json").read_bytes() for name in ("first", "run"))
    assert first == second
    assert main(["--config", further, "--overwrite_output_dir", "--max_length", "64"]) == 2
    assert "more than the 32 tokens" in capsys.readouterr().err
    changed = ["--config", further, "--overwrite_output_dir", "--max_steps", "1", "--config_overrides"]
    assert main([*changed, "hidden_dropuot=0.5"]) == 2
    assert "did you mean hidden_dropout?" in capsys.readouterr().err
    assert main([*changed, "hidden_dropout=0.5"]) == 0
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["hidden_dropout"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_file": ["nothing.txt"]}, "no such file: nothing.txt"),
        ({"preset": "nanoo"}, "There is no preset 'nanoo'"),
        ({"model_type": "lama"}, "did you mean llama?"),
        ({"config_overrides": {"hidden_sise": 8}}, "did you mean hidden_size?"),
        ({"config_overrides": {"num_attention_heads": 3, "hidden_size": 16}}, "num_attention_heads"),
        ({"tokenizer_name": "./nowhere"}, "--tokenizer_name ./nowhere: there is no folder ./nowhere"),
        ({"model_name_or_path": "./nowhere", "tokenizer_name": None}, "nowhere"),
        ({"tokenizer_vocab_size": 10}, "258"),
        ({"max_length": 1}, "--max_length must be at least 2"),
        ({"sample_max_new_tokens": 0}, "--sample_max_new_tokens must be at least 1"),
        ({"resume_from_checkpoint": "last"}, "no complete checkpoint"),
    ],
)
def test_bad_settings_are_one_line(recipe, capsys, changes, message):
    assert main(["--config", recipe(**changes)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_a_bad_corpus_does_not_cost_the_former_run(recipe, tmp_path, capsys):
    kept = tmp_path / "run" / "model" / "config.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    assert main(["--config", recipe(train_file=["nothing.txt"], overwrite_output_dir=True)]) == 2
    assert kept.exists()


def test_a_checkpoint_that_does_not_open_is_said_so(tmp_path):
    from hf_gpt.errors import CheckpointError

    request = {"documents": ["text"], "packing_strategy": "best_fit", "batch_size": 1, "trust_remote_code": False}
    with pytest.raises(CheckpointError, match="does not work in a fresh process"):
        reload_check.in_fresh_process(reload_check.score_and_continue, checkpoint=str(tmp_path), **request)


def test_an_lstm_is_trained_on_packed_rows(recipe, tmp_path, in_process, capsys):
    settings = {"hidden_size": 16, "num_layers": 2}
    assert main(["--config", recipe(model_type="hf_lstm", config_overrides=settings)]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert model.config.model_type == "hf_lstm"
    reloaded = re.search(r"bits per byte +([\d.]+) .*fresh process \(([\d.]+) before", capsys.readouterr().out)
    assert float(reloaded[1]) == pytest.approx(float(reloaded[2]), abs=2e-4)
