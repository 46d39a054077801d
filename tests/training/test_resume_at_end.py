"""A run that is gone on with at its end trains nothing, and writes what is missing as the straight run did."""

import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from hf_gpt.cli import adversarial, finetune, pretrain
from hf_gpt.errors import CheckpointError
from hf_gpt.files.manifest import MANIFEST_NAME
from hf_gpt.training.monitoring import reload_check
from tests.adversarial.players import make_trainer as make_adversarial
from tests.faults.damage import digests
from tests.fine_tuning import called_here
from tests.training.resumed_runs import difference, make_trainer, result


BASE = {
    "optimizer": "adamw",
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "ema_decay": 0.9,
    "per_device_train_batch_size": 2,
    "logging_steps": 2,
}
ENDS = {
    "steps": {"max_steps": 5, "save_strategy": "steps", "save_steps": 2},
    "whole epochs of steps": {"max_steps": 12, "save_strategy": "steps", "save_steps": 6},
    "epochs": {"num_train_epochs": 2, "save_strategy": "epoch"},
    "epochs, saved by steps": {"num_train_epochs": 1, "save_strategy": "steps", "save_steps": 4},
    "half epochs": {"num_train_epochs": 1.5, "save_strategy": "epoch"},
}


def last(folder):
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


@pytest.mark.parametrize(
    ("end", "stream"), [*((end, False) for end in ENDS), ("steps", True), ("whole epochs of steps", True)]
)
def test_no_step_is_taken_after_the_last(tmp_path, end, stream):
    samples = {"options": {**BASE, **ENDS[end]}, "rows": 12, "stream": stream, "dropout": 0.2, "adapter": False}
    straight = make_trainer(tmp_path / "run", samples)
    straight.train()
    files = digests(tmp_path / "run")
    for _ in range(2):
        again = make_trainer(tmp_path / "run", samples)
        again.train(resume_from_checkpoint=True)
        assert again.seen == {} and digests(tmp_path / "run") == files
        assert difference(result(again), result(straight)) in ([], [".random"])


@pytest.mark.parametrize("end", ["steps", "epochs"])
def test_a_checkpoint_of_another_trainer_is_not_trained_past_its_end(tmp_path, end):
    samples = {"options": {**BASE, **ENDS[end]}, "rows": 12, "stream": False, "dropout": 0.0, "adapter": False}
    straight = make_trainer(tmp_path / "run", samples)
    straight.train()
    for name in ("run_record.json", MANIFEST_NAME):
        (last(tmp_path / "run") / name).unlink()
    again = make_trainer(tmp_path / "run", samples)
    again.train(resume_from_checkpoint=True)
    assert again.seen == {} and again.state.global_step == straight.state.global_step
    assert all(
        torch.equal(tensor, again.model.state_dict()[name]) for name, tensor in straight.model.state_dict().items()
    )


@pytest.mark.parametrize(
    "end",
    [{"max_steps": 3, "save_strategy": "steps", "save_steps": 2}, {"max_steps": -1, "num_train_epochs": 1}],
    ids=["steps", "epochs"],
)
def test_neither_player_moves_after_the_last_step(tmp_path, end):
    settings = {"ema_decay": 0.9, "save_strategy": "epoch", "save_total_limit": 2, **end}
    straight = make_adversarial(tmp_path / "run", **settings)
    straight.train()
    files = digests(tmp_path / "run")
    for _ in range(2):
        again = make_adversarial(tmp_path / "run", **settings)
        again.train(resume_from_checkpoint=True)
        assert again.state.global_step == straight.state.global_step and digests(tmp_path / "run") == files
        for mine, other in ((again.model, straight.model), (again.discriminator, straight.discriminator)):
            assert all(torch.equal(tensor, mine.state_dict()[name]) for name, tensor in other.state_dict().items())
        pairs = zip(again._average.average.weights.values(), straight._average.average.weights.values(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)


TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SPECIAL = {
    "pretrain": {"max_length": 32, "sample_max_new_tokens": 2},
    "finetune": {"task": "classification", "max_length": 32, "max_eval_samples": 4},
    "adversarial": {
        "max_new_tokens": 6,
        "mle_warmup_steps": 0,
        "discriminator_warmup_steps": 1,
        "discriminator_steps": 1,
        "gate_auc": 0,
        "num_eval_samples": 20,
        "monitor_steps": 2,
        "max_train_samples": 200,
    },
}


@pytest.mark.parametrize("command", SPECIAL)
def test_what_the_end_of_a_run_lost_is_written_again(command, tmp_path, corpus_file, monkeypatch, capsys):
    """A run that is killed, or finds the disk full, after its last checkpoint."""
    monkeypatch.setattr(reload_check, "in_fresh_process", called_here)
    settings = {
        "config_overrides": TINY,
        "tokenizer_vocab_size": 300,
        "output_dir": str(tmp_path / "run"),
        "max_steps": 4,
        "save_steps": 2,
        "save_strategy": "steps",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 1,
        "ema_decay": 0.9,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 4,
        **({} if command == "finetune" else {"train_file": [str(corpus_file)]}),
        **SPECIAL[command],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    main = {"pretrain": pretrain, "finetune": finetune, "adversarial": adversarial}[command].main
    assert main(["--config", str(path)]) == 0, capsys.readouterr().err
    run = tmp_path / "run"
    weights, expected = sorted(run.rglob("*.safetensors")), digests(run)
    shutil.rmtree(run / "model")
    (run / "report.html").unlink()
    (run / ".model.incomplete").mkdir()
    (run / ".model.incomplete" / "model.safetensors").write_bytes(b"half")
    assert main(["--config", str(path), "--resume_from_checkpoint"]) == 0, capsys.readouterr().err
    assert "nothing is trained" in capsys.readouterr().out
    assert sorted(run.rglob("*.safetensors")) == weights and all(load_file(each) for each in weights)
    found = digests(run)
    kept = {name for name in expected if name.endswith((".safetensors", ".pt", ".pth")) or "checkpoint-" in name}
    assert {name for name in kept if found.get(name) != expected[name]} == set()
    assert (run / "report.html").is_file() and not list(run.glob(".*"))


def test_a_damaged_best_checkpoint_is_no_final_model(tmp_path):
    options = {**BASE, **ENDS["steps"], "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True}
    options |= {"metric_for_best_model": "loss", "greater_is_better": True}
    samples = {"options": options, "rows": 12, "stream": False, "dropout": 0.0, "adapter": False}
    straight = make_trainer(tmp_path / "run", samples, max_steps=4)
    straight.train()
    assert straight.state.best_global_step == 2
    best = tmp_path / "run" / "checkpoint-2" / "model.safetensors"
    content = bytearray(best.read_bytes())
    content[-5] ^= 1
    best.write_bytes(content)
    with pytest.raises(CheckpointError, match="by its checksum"):
        make_trainer(tmp_path / "run", samples, max_steps=4).train(
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4")
        )
