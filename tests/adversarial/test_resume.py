"""A resumed run is the run that was never stopped, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.adversarial.players import make_generator, make_pairs, make_trainer


EXTRAS = {
    "mle_warmup_steps": 1,
    "replay_fraction": 0.5,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 10,
    "monitor_steps": 2,
}


def weights(trainer):
    parts = {"g": trainer.model, "d": trainer.discriminator}
    return {
        f"{side}.{name}": tensor.clone()
        for side, model in parts.items()
        if model is not None
        for name, tensor in model.state_dict().items()
    }


def metrics(trainer):
    times = ("tokens_per_second", "eta_seconds", "runtime", "per_second")
    return [
        {name: value for name, value in entry.items() if not any(part in name for part in times)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {"baseline": "moving_average", "reward_level": "prefix", "gradient_accumulation_steps": 2},
        {"estimator": "grpo", "num_iterations": 2, "beta": 0.1, "group_size": 4, "texts": "pairs"},
    ],
    ids=["reinforce", "grpo"],
)
@pytest.mark.parametrize("at", [1, 3])
def test_resumed_run_is_the_straight_one(tmp_path, settings, at):
    settings = {**EXTRAS, **settings}
    texts = make_pairs() if settings.pop("texts", None) else None

    def make(folder):
        dropped = make_generator(hidden_dropout=0.2)
        return make_trainer(folder, dropped, texts=texts, max_steps=5, **settings)

    straight = make(tmp_path / "straight")
    straight.train()
    shutil.copytree(tmp_path / "straight" / f"checkpoint-{at}", tmp_path / "resumed" / f"checkpoint-{at}")
    resumed = make(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "resumed" / f"checkpoint-{at}"))
    assert_equal(weights(resumed), weights(straight))
    assert metrics(resumed) == metrics(straight)
    assert resumed.loop.replay.texts == straight.loop.replay.texts and resumed.loop.replay.texts
    assert resumed.loop.history.monitors.state_dict() == straight.loop.history.monitors.state_dict()
    assert resumed.schedule.state_dict() == straight.schedule.state_dict()
    fresh = weights(make(tmp_path / "fresh"))
    assert all(not torch.equal(weights(straight)[name], fresh[name]) for name in fresh if fresh[name].ndim == 2)


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    """SIGKILL after a checkpoint, in the middle of a later step; another process goes on."""
    script = Path(__file__).with_name("killed.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(folder, mode):
        command = [sys.executable, str(script), str(tmp_path / folder), mode]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    killed = run("run", "kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not (tmp_path / "run" / "generator.safetensors").exists()
    assert run("run", "resume").returncode == 0
    assert run("straight", "straight").returncode == 0
    for name in ("generator.safetensors", "discriminator.safetensors"):
        assert_equal(load_file(tmp_path / "run" / name), load_file(tmp_path / "straight" / name))


def test_a_checkpoint_opens_by_itself(tmp_path):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    trainer = make_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    ids = torch.tensor([[1, 5, 6, 2]])
    folder = tmp_path / "checkpoint-2"
    generator = AutoModelForCausalLM.from_pretrained(folder).eval()
    discriminator = AutoModelForSequenceClassification.from_pretrained(folder / "discriminator").eval()
    with torch.no_grad():
        torch.testing.assert_close(generator(ids).logits, trainer.model.eval()(ids).logits)
        torch.testing.assert_close(discriminator(ids).logits, trainer.discriminator.eval()(ids).logits)


def test_the_best_players_come_back(tmp_path):
    trainer = make_trainer(
        tmp_path,
        max_steps=4,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    assert best.name == f"checkpoint-{max(losses, key=losses.get)}" and best.name != "checkpoint-4"
    saved = load_file(best / "discriminator" / "model.safetensors")
    assert all(torch.equal(trainer.discriminator.state_dict()[name], tensor) for name, tensor in saved.items())


def test_a_checkpoint_of_other_training_is_refused(tmp_path):
    from hf_gpt.errors import CheckpointError

    trainer = make_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    shutil.rmtree(tmp_path / "checkpoint-2" / "discriminator")
    with pytest.raises(CheckpointError, match="not adversarial"):
        make_trainer(tmp_path, max_steps=3).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
