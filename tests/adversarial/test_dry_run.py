"""What a dry run says of a game: the time of each phase, and of all by their numbers."""

from types import SimpleNamespace

import pytest
from transformers import TrainerCallback

import hf_gpt.training.monitoring.step_times
from hf_gpt.adversarial.schedule import Phase
from hf_gpt.cli.adversarial import describe_run, stretches
from hf_gpt.training.monitoring.step_times import time_steps
from tests.adversarial.players import make_generator, make_trainer


TAUGHT = {"discriminator_loss": "density", "estimator": "exact_token", "anchor_soft_targets": 1.0}
SECONDS = {Phase.LIKELIHOOD: 1, Phase.DISCRIMINATOR: 2, Phase.DISTILLATION: 3, Phase.ADVERSARIAL: 10}


class Phases(TrainerCallback):
    """Notes the phase of every step."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(self.trainer._phase)


@pytest.mark.parametrize(
    ("settings", "tried", "seconds"),
    [
        ({"mle_warmup_steps": 50, "discriminator_warmup_steps": 40}, [6, 6, 0, 6], 50 + 2 * 40 + 10 * 10),
        ({"discriminator_warmup_steps": 40, "generator_steps": 3, "gate_auc": 0.9}, [0, 6, 0, 8], 2 * 40 + 10 * 60),
        ({"discriminator_warmup_steps": 0}, [0, 0, 0, 6], 10 * 100),
        (
            {**TAUGHT, "discriminator_warmup_steps": 40, "distillation_warmup_steps": 20},
            [0, 6, 6, 6],
            2 * 40 + 3 * 20 + 10 * 40,
        ),
        ({"mle_warmup_steps": 70, "discriminator_warmup_steps": 60}, [6, 6, 0, 0], 70 + 2 * 30),
    ],
)
def test_every_phase_is_timed(tmp_path, monkeypatch, caplog, settings, tried, seconds):
    phases = Phases()
    discriminator = make_generator(seed=1) if "anchor_soft_targets" in settings else "default"
    trainer = make_trainer(
        tmp_path, discriminator=discriminator, max_steps=100, dry_run=True, callbacks=[phases], **settings
    )
    phases.trainer, now = trainer, [0]

    def perf_counter():
        now[0] += SECONDS[trainer._phase]
        return now[0]

    monkeypatch.setattr(hf_gpt.training.monitoring.step_times, "perf_counter", perf_counter)
    ((_, line), _) = time_steps(trainer, stretches(trainer))
    assert [phases.seen.count(phase) for phase in Phase] == tried and trainer.schedule.skipped_steps == 0
    assert f": {seconds // 60} min {seconds % 60:02d} s for 100 steps" in line
    # Of so few steps as a dry run has, nothing is said.
    assert "may have no adversarial step" not in caplog.text
    assert ("10.000 s a step of both" in line) == bool(tried[3]) and "tokens/s" in line


def test_a_run_that_is_all_warmup_is_warned_of(tmp_path, caplog):
    trainer = make_trainer(tmp_path, max_steps=2, discriminator_warmup_steps=100)
    what = dict(describe_run(trainer, SimpleNamespace(train_rows=[], validation_rows=[], texts="0")))["training"]
    assert (
        "2 steps of 8 texts, 2 at most of the discriminator alone, and perhaps no adversarial step among them" in what
    )
    trainer.train()
    assert "a run of 2 steps may have no adversarial step" in caplog.text
