"""Updates of the generator are counted as they really were, held-out text is the same each time, idle runs are told."""

import json
import math

import pytest
import torch
from transformers import TrainerCallback

from hf_gpt.adversarial.monitoring.evaluation import headline_metrics
from hf_gpt.adversarial.monitoring.outcomes import Outcome, complaint, describe, updates
from hf_gpt.errors import ConfigError
from hf_gpt.reporting.report import write_report
from tests.adversarial.players import logged, make_discriminator, make_generator, make_texts, make_trainer


class Changes(TrainerCallback):
    """Counts the steps after which the generator has other weights than before."""

    def __init__(self, model):
        self.model, self.count = model, 0

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = [parameter.detach().clone() for parameter in self.model.parameters()]

    def on_step_end(self, args, state, control, **kwargs):
        pairs = zip(self.before, self.model.parameters(), strict=True)
        self.count += any(not torch.equal(before, after) for before, after in pairs)


def watched(tmp_path, **settings):
    """A trainer that has run, and how many of its steps changed the generator."""
    trainer = make_trainer(tmp_path, **settings)
    changes = Changes(trainer.model)
    trainer.add_callback(changes)
    trainer.train()
    return trainer, changes.count


@pytest.mark.parametrize(
    "settings",
    [
        {"gate_auc": 1.0, "auc_window": 8},
        {"gate_auc": 0.0},
        {"gate_auc": 0.0, "discriminator_warmup_steps": 4, "discriminator_warmup_auc": 1.0},
        {"gate_auc": 0.0, "mle_warmup_steps": 2},
        {"gate_auc": 0.0, "warmup_steps": 3},
        {"gate_auc": 0.0, "learning_rate": 0.0},
        {"gate_auc": 0.0, "lambda_mle": 0.0, "reward_function": lambda texts: torch.zeros(len(texts))},
        {"gate_auc": 0.0, "gradient_accumulation_steps": 2},
    ],
)
def test_updates_are_the_steps_that_changed_the_generator(tmp_path, settings):
    settings = {"max_steps": 6, "discriminator_warmup_steps": 1, "on_collapse": "warn", **settings}
    if "reward_function" in settings:
        settings["discriminator"] = None
    trainer, changed = watched(tmp_path, **settings)
    schedule = trainer.schedule
    assert sum(schedule.outcomes.values()) == trainer.state.global_step == 6
    assert schedule.generator_updates == changed
    assert [entry["generator_updates"] for entry in trainer.state.log_history if "alert" not in entry][-1] == changed
    assert all("generator_updates" in entry for entry in trainer.state.log_history if "alert" not in entry)


def test_a_step_that_is_not_finite_is_none_of_the_updates(tmp_path):
    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step in (2, 3):
                trainer.generator_step.loop.log("poisoned", 1.0)
                trainer.poison = True

    trainer = make_trainer(tmp_path, max_steps=5, gate_auc=0.0, nan_action="skip", discriminator_warmup_steps=0)
    trainer.poison, distillation = False, trainer._adversarial_loss

    def poisoned(*args):
        loss = distillation(*args)
        trainer.poison, factor = False, math.nan if trainer.poison else 1.0
        return loss * factor

    trainer._adversarial_loss = poisoned
    trainer.add_callback(Poison())
    changes = Changes(trainer.model)
    trainer.add_callback(changes)
    trainer.train()
    assert trainer.schedule.outcomes[Outcome.NON_FINITE.value] == 2
    assert (
        trainer.schedule.generator_updates
        == changes.count
        == 5 - 2 - trainer.schedule.outcomes.get(Outcome.ZERO_RATE.value, 0)
    )


def test_a_run_whose_gate_stayed_shut_says_so(tmp_path, caplog):
    trainer, _ = watched(tmp_path, gate_auc=1.0, discriminator_learning_rate=1e-6, max_steps=5, auc_window=8)
    assert trainer.describe_updates().startswith("The generator was never updated")
    assert "generator updated 0 of 5 steps" in caplog.text and "the gate was shut in 4 steps" in caplog.text
    # No step had a loss or a gradient: none is logged, not even as a mean.
    assert logged(trainer, "train_loss") == logged(trainer, "loss") == logged(trainer, "grad_norm") == []
    assert logged(trainer, "gate_shut") == [1.0] * 4
    assert trainer.update_counts() == {
        "generator_updates": 0,
        "steps_discriminator_warmup": 1,
        "steps_gate_shut": 4,
        "discriminator_updates": trainer.discriminator_trainer.updates,
    }


def test_the_mean_loss_of_a_run_is_of_the_steps_that_had_one(tmp_path):
    settings = {"gate_auc": 0.0, "discriminator_warmup_steps": 3, "discriminator_warmup_auc": 1.0, "auc_window": 8}
    trainer, _ = watched(tmp_path, max_steps=6, on_collapse="warn", **settings)
    losses = logged(trainer, "loss")
    assert len(losses) == 3 and logged(trainer, "train_loss")[0] == pytest.approx(sum(losses) / 3, abs=2e-3)


def test_counts_go_on_after_a_resume(tmp_path):
    settings = {"gate_auc": 0.0, "discriminator_warmup_steps": 1, "on_collapse": "warn", "max_steps": 6}
    straight, _ = watched(tmp_path / "straight", **settings)

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = control.should_training_stop = state.global_step == 3

    stopped = make_trainer(tmp_path / "run", **settings)
    stopped.add_callback(Stop())
    stopped.train()
    resumed = make_trainer(tmp_path / "run", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert resumed.schedule.outcomes == straight.schedule.outcomes


def test_held_out_likelihood_is_of_the_same_texts_each_time(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=0.0, lambda_mle=0.0, max_steps=8, monitor_steps=1, gate_auc=0.0)
    position = trainer.loop.eval_numbers.position
    first = trainer.loop.held_out_nll(trainer.model)
    assert trainer.loop.held_out_nll(trainer.model) == first
    assert trainer.loop.eval_numbers.position == position
    trainer.train()
    # The generator stays as it is, and so does the curve.
    curve = logged(trainer, "nll_heldout")
    assert len(curve) >= 6 and max(curve) - min(curve) < 1e-6


def test_all_held_out_texts_are_read_where_they_are_few(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=make_texts(12, seed=5), per_device_train_batch_size=8)
    batch = trainer.loop._collated([trainer.eval_dataset[number] for number in range(12)])
    logps = trainer.loop.token_logps(trainer.model, batch) * batch.completion_mask
    expected = -(logps.sum() / batch.completion_mask.sum()).item()
    assert trainer.loop.held_out_nll(trainer.model) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"adversarial_update": 1, "gate_shut": 11}, "generator updated 1 of 12 steps (the gate was shut in 11 steps)"),
        (
            {"likelihood_update": 8, "gate_shut": 2},
            "generator updated 8 of 10 steps, all of them by maximum likelihood alone",
        ),
        ({"discriminator_warmup": 2}, "generator updated 0 of 2 steps (the discriminator was warmed up alone in 2"),
        ({"non_finite": 1, "zero_gradient": 1}, "loss or gradient was not finite in 1 step; the gradient was 0 in 1 s"),
    ],
)
def test_a_run_that_trained_next_to_nothing_is_told(counts, says):
    assert says in describe(counts) and describe(counts) in complaint(counts)


@pytest.mark.parametrize(
    ("counts", "advice"),
    [
        ({"likelihood_update": 11, "zero_learning_rate": 1}, "lower --mle_warmup_steps"),
        ({"likelihood_update": 2, "zero_learning_rate": 9}, "Set --learning_rate above 0"),
        ({"likelihood_update": 8, "gate_shut": 3}, "unknown or below --gate_auc"),
    ],
)
def test_the_advice_is_about_what_happened(counts, advice):
    assert advice in complaint(counts)


@pytest.mark.parametrize("counts", [{}, {"likelihood_update": 5}, {"adversarial_update": 1, "gate_shut": 9}])
def test_a_run_that_trained_is_not(counts):
    assert complaint(counts) is None and updates(counts) == sum(counts.values()) - counts.get("gate_shut", 0)


def test_a_frozen_discriminator_is_refused_and_a_frozen_generator_too(tmp_path):
    with pytest.raises(ConfigError, match="the discriminator has nothing to train"):
        make_trainer(tmp_path, discriminator=make_discriminator().requires_grad_(False))
    trainer = make_trainer(tmp_path, generator=make_generator().requires_grad_(False))
    with pytest.raises(ConfigError, match=r"nothing to train: all .* parameters of .* are frozen"):
        trainer.train()
    # One that is meant to stay as it is does.
    frozen = make_discriminator().requires_grad_(False)
    settings = {"discriminator_steps": 0, "discriminator_warmup_steps": 0, "gate_auc": 0.0, "max_steps": 2}
    trainer, changed = watched(tmp_path, discriminator=frozen, **settings)
    assert trainer.schedule.generator_updates == changed


def test_texts_that_a_short_limit_makes_the_same_are_told(tmp_path, caplog):
    texts = [{"input_ids": [10, 11, 10, number]} for number in (12, 13, 14, 15) * 8]
    make_trainer(tmp_path, texts=texts, eval_dataset=texts, max_new_tokens=3)
    assert "all 32 texts to train on are the same 3 tokens after they were cut to --max_new_tokens 3" in caplog.text
    caplog.clear()
    make_trainer(tmp_path, texts=texts, eval_dataset=texts, max_new_tokens=5)
    assert "are the same" not in caplog.text


def test_page_and_log_show_updates_gate_and_each_warning_with_its_step(tmp_path):
    settings = {"max_steps": 8, "monitor_steps": 2, "auc_window": 8, "on_collapse": "warn"}
    trainer, _ = watched(tmp_path, gate_auc=0.9, discriminator_learning_rate=1e-6, **settings)
    raised = trainer.loop.history.monitors.alerts
    alerts = [entry for entry in trainer.state.log_history if "alert" in entry]
    assert [(entry["alert"], entry["step"]) for entry in alerts] == [(each.name, each.step) for each in raised]
    assert any(entry["alert"] == "useless discriminator" for entry in alerts)
    json.dumps(trainer.state.log_history)
    page = write_report(
        tmp_path / "report.html",
        title="t",
        summary=trainer.describe_updates(),
        metrics=[],
        log_history=trainer.state.log_history,
        samples=[],
        settings={},
        environment={},
    ).read_text(encoding="utf-8")
    for shown in ("Updates so far", "Share of steps skipped by the gate", "useless discriminator", "Warnings"):
        assert shown in page
    steps = [each.step for each in raised if each.name == "useless discriminator"]
    assert f"<td>{', '.join(map(str, steps))}</td>" in page


def test_page_shows_a_fresh_classifiers_auc_beside_the_same_of_real_texts(tmp_path):
    measured = {"eval_loss": 3.0, "eval_fresh_auc": 0.71, "eval_fresh_auc_error": 0.031, "eval_fresh_auc_texts": 80}
    control = {"eval_fresh_auc_real": 0.53, "eval_fresh_auc_real_error": 0.044, "eval_fresh_auc_real_texts": 80}
    tiles = headline_metrics(measured | control)
    found = {tile.value: tile.note for tile in tiles}
    assert "± 0.031, 80 of each" in found["0.7100"] and "± 0.044, 80 of each" in found["0.5300"]
    assert not any("0.5 " in tile.note for tile in tiles)
    assert "too few real texts for a control" in headline_metrics(measured)[1].note
    page = write_report(
        tmp_path / "report.html",
        title="t",
        summary="s",
        metrics=tiles,
        log_history=[{"step": step, **measured, **control} for step in (1, 2)],
        samples=[],
        settings={},
        environment={},
    ).read_text(encoding="utf-8")
    for shown in ("C2ST AUC, control", "Real and other real text", "Real and generated text", "0.5300"):
        assert shown in page
