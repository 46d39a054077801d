"""What adversarial training adds to Trainer's log entries: discriminator, gate and updates."""

from typing import Any

from hf_gpt.adversarial.discriminator.trainer import DiscriminatorTrainer
from hf_gpt.adversarial.monitoring import outcomes
from hf_gpt.adversarial.monitoring.history import History
from hf_gpt.adversarial.schedule import Phase, Schedule


def add_adversarial_metrics(
    logs: dict[str, Any],
    history: History,
    schedule: Schedule,
    discriminator_trainer: DiscriminatorTrainer | None,
    phase: Phase,
    num_alerts: int,
) -> None:
    """Puts the adversarial state into a log entry of training.

    Args:
        logs: The entry.
        history: AUCs of the discriminator.
        schedule: Steps that the gate left out.
        discriminator_trainer: The discriminator, if there is one.
        phase: That of the last step.
        num_alerts: Alerts of the last evaluation step.
    """
    logs["phase"] = phase.value
    logs["warnings"] = num_alerts
    for name, value in (("d_auc_heldout", history.heldout.auc), ("d_auc_train", history.train.auc)):
        if value is not None:
            logs[name] = value
    if discriminator_trainer is not None and discriminator_trainer.scheduler is not None:
        logs["d_learning_rate"] = discriminator_trainer.learning_rate
        logs["d_updates"] = discriminator_trainer.updates
        logs["skipped_generator_steps"] = schedule.skipped_steps
        if discriminator_trainer.skipped:
            logs["d_skipped_updates"] = discriminator_trainer.skipped


def count_updates(logs: dict[str, Any], schedule: Schedule, last: outcomes.Outcome | None) -> None:
    """Puts the generator's updates into a log entry, and removes what steps without a loss would falsify.

    Args:
        logs: The entry.
        schedule: What the steps did.
        last: What the last one did.
    """
    if last in outcomes.WITHOUT_LOSS:
        # The norm is the last step's, which had no gradient.
        logs.pop("grad_norm", None)
    if "train_loss" in logs:
        # Trainer counts steps without a loss as losses of 0.
        with_loss = outcomes.steps_with_loss(schedule.outcomes)
        total = logs.pop("train_loss") * sum(schedule.outcomes.values())
        if with_loss:
            logs["train_loss"] = total / with_loss
    logs["generator_updates"] = schedule.generator_updates
