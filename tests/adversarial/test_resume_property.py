"""An adversarial run that is resumed is the straight one bit for bit, whatever its options and wherever it stopped."""

import random
import shutil

import pytest
import torch

from hf_gpt.errors import ConfigError
from hf_gpt.training.run import make_callbacks
from tests.adversarial.players import make_discriminator, make_generator, make_pairs, make_trainer
from tests.training.resumed_runs import difference, flat, history


GAMES = (
    {},
    {"baseline": "moving_average", "reward_level": "prefix"},
    {"estimator": "grpo", "num_iterations": 2, "beta": 0.1, "group_size": 4},
    {"discriminator_texts": "shared", "reward": "sigmoid"},
    {"discriminator_loss": "bradley_terry", "calibration_weight": 0.1},
    {"estimator": "weighted_likelihood"},
    {"estimator": "spin", "reference_steps": 2},
    {
        "discriminator_loss": "density",
        "estimator": "exact_token",
        "anchor_soft_targets": 0.5,
        "distillation_warmup_steps": 1,
    },
)


def sample(seed):
    """Options of a game, and which checkpoint to resume from, as a share of them."""
    chance = random.Random(seed)
    pick = chance.choice
    options = {
        "max_steps": chance.randrange(4, 8),
        "mle_warmup_steps": pick([0, 1]),
        "discriminator_warmup_steps": pick([0, 2]),
        "gate_auc": pick([0.0, 0.55, 0.9]),
        "auc_window": pick([4, 32]),
        "heldout_steps": pick([1, 2]),
        "monitor_steps": pick([1, 2, 3]),
        "replay_fraction": pick([0.0, 0.25, 0.5]),
        "gradient_accumulation_steps": pick([1, 2]),
        "lr_scheduler_type": pick(["constant", "linear", "warmup_stable_decay"]),
        "discriminator_lr_scheduler_type": pick(["constant", "linear"]),
        "lambda_mle_final": pick([None, 0.1]),
        "optimizer": pick(["adamw", "muon"]),
        "ema_decay": pick([None, 0.9]),
        "logging_steps": pick([1, 2, 3]),
        "eval_strategy": pick(["no", "steps", "epoch"]),
        "eval_steps": pick([1, 2]),
        "num_eval_samples": pick([0, 16]),
        "seed": chance.randrange(100),
        **pick(GAMES),
    }
    if options.get("discriminator_texts") != "shared" and options.get("num_iterations", 1) == 1:
        options |= {"discriminator_steps": pick([1, 2]), "generator_steps": pick([1, 2])}
    if options["eval_strategy"] != "no":
        options["early_stopping_patience"] = pick([None, 1, 2])
    return {
        "options": options,
        "pairs": chance.random() < 0.4,
        "dropout": pick([0.0, 0.2]),
        "share": chance.random(),
    }


def make(folder, samples):
    options = {**samples["options"], "save_strategy": "steps", "save_steps": 1, "save_total_limit": None}
    discriminator = make_discriminator()
    if options.get("discriminator_loss") == "density":
        discriminator = make_generator(seed=1)
    if options.get("estimator") == "spin":
        discriminator = None
    generator = make_generator(hidden_dropout=samples["dropout"])
    texts = make_pairs() if samples["pairs"] else None
    trainer = make_trainer(folder, generator, discriminator, texts=texts, nan_action="skip", **options)
    for callback in make_callbacks(trainer.args)[1:]:
        trainer.add_callback(callback)
    return trainer


def result(trainer):
    discriminator_trainer = trainer.discriminator_trainer
    parts = {
        "generator": dict(trainer.model.state_dict()),
        "optimizer": trainer.optimizer.state_dict(),
        "rate": trainer.lr_scheduler.get_last_lr(),
        "history": history(trainer),
        "step": trainer.state.global_step,
        "schedule": trainer.schedule.state_dict(),
        "adversarial_state": trainer.loop.state_dict(),
        "average_return": trainer.generator_step.average_return,
        "noise": trainer.loop.noise.get_state(),
        "random": torch.random.get_rng_state(),
        "best": trainer.state.best_metric,
    }
    if discriminator_trainer is not None:
        parts |= {
            "discriminator": dict(discriminator_trainer.model.state_dict()),
            "d_optimizer": discriminator_trainer.optimizer.state_dict(),
            "d_rate": discriminator_trainer.scheduler.get_last_lr(),
            "updates": [discriminator_trainer.updates, discriminator_trainer.skipped],
        }
    return flat(parts)


def check(seed, folder):
    samples = sample(seed)
    straight = make(folder / "straight", samples)
    straight.train()
    steps = sorted(int(path.name.split("-")[1]) for path in (folder / "straight").glob("checkpoint-*"))
    at, expected = steps[int(samples["share"] * len(steps))], result(straight)
    resumed = make(folder / "resumed", samples)
    resumed.train(resume_from_checkpoint=str(folder / "straight" / f"checkpoint-{at}"))
    return [f"resumed at {at}: {name}" for name in difference(result(resumed), expected)]


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_game_goes_on_as_the_straight_one(seed, tmp_path):
    assert check(seed, tmp_path) == [], sample(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 180, 20))
def test_many_drawn_games_go_on_as_the_straight_ones(first, tmp_path):
    found = {}
    for seed in range(first, first + 20):
        found[seed] = check(seed, tmp_path / "adversarial_state")
        shutil.rmtree(tmp_path / "adversarial_state")
    assert {seed: lines for seed, lines in found.items() if lines} == {}


def test_more_steps_and_rates_hold_for_both_players(tmp_path, caplog):
    options = {"lr_scheduler_type": "linear", "discriminator_lr_scheduler_type": "linear", "warmup_steps": 0}
    options |= {"max_steps": 4, "save_strategy": "steps", "save_steps": 4, "discriminator_warmup_steps": 0}
    make_trainer(tmp_path, **options).train()
    checkpoint = str(tmp_path / "checkpoint-4")
    changes = {"max_steps": 8, "discriminator_learning_rate": 1e-2, "save_strategy": "no"}
    trainer = make_trainer(tmp_path, **{**options, **changes})
    trainer.train(resume_from_checkpoint=checkpoint)
    logs = {entry["step"]: entry for entry in trainer.state.log_history if "phase" in entry}
    assert [logs[step]["learning_rate"] for step in range(5, 9)] == pytest.approx([3e-3 * n / 8 for n in (4, 3, 2, 1)])
    # That of the next update, of which there is one more than steps in all.
    done = [logs[step]["d_updates"] for step in range(5, 9)]
    total = trainer.schedule.total_discriminator_updates()
    expected = [1e-2 * (total - updates) / total for updates in done]
    assert [logs[step]["d_learning_rate"] for step in range(5, 9)] == pytest.approx(expected)
    assert "--discriminator_learning_rate 0.003 -> 0.01" in caplog.text
    for change in ({"gate_auc": 0.7}, {"estimator": "grpo"}, {"per_device_train_batch_size": 4}):
        with pytest.raises(ConfigError, match=f"--{next(iter(change))} "):
            make_trainer(tmp_path, **{**options, "max_steps": 8, **change}).train(resume_from_checkpoint=checkpoint)


def test_a_run_that_collapsed_stays_stopped(tmp_path):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 1, "on_collapse": "stop", "monitor_steps": 1}

    def play(folder, **changes):
        trainer = make_trainer(tmp_path / folder, **{**options, **changes})
        begin = trainer._begin_run

        def begin_run():
            begin()
            trainer.loop.history.monitors.patience = 2
            trainer.loop.history.monitors._keep_score = lambda step, now, raised: setattr(
                trainer.loop.history.monitors, "fatal_in_a_row", trainer.loop.history.monitors.fatal_in_a_row + 1
            )

        trainer._begin_run = begin_run
        return trainer

    straight = play("straight")
    straight.train()
    assert straight.state.global_step == 2
    for at in (1, 2):
        trainer = play("resumed")
        trainer.train(resume_from_checkpoint=str(tmp_path / "straight" / f"checkpoint-{at}"))
        assert trainer.state.global_step == 2
    trainer = play("warned", on_collapse="warn")
    trainer.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert trainer.state.global_step == 6
