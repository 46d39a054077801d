"""Training that would change nothing, or little: refused, or said in a sentence before any step."""

import logging
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from hf_gpt.errors import ConfigError


if TYPE_CHECKING:
    from hf_gpt.training.trainer import HfGptTrainer


logger = logging.getLogger(__name__)

# Rows that are compared, and steps of a schedule that are looked at: enough to tell, and quickly done.
MOST_ROWS, MOST_STEPS = 1000, 10_000
# Share of steps that may be left out without a word at the end.
MOST_SKIPPED = 0.1


def check_trainable(model: torch.nn.Module) -> None:
    """Raises `ConfigError` for a model whose parameters are all frozen."""
    parameters = list(model.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        raise ConfigError(
            f"there is nothing to train: all {len(parameters)} parameters of {type(model).__name__} are frozen. Set "
            "requires_grad on those that should learn, or give an adapter that is trained (is_trainable=True)."
        )


def warn_if_idle(trainer: "HfGptTrainer", max_steps: int) -> None:
    """Logs warnings where a run of `max_steps` in all would change nothing or not reach its learning rate."""
    args = trainer.args
    warmup = args.get_warmup_steps(max_steps)
    rates = [] if trainer.optimizer is None else _rates(trainer, max_steps)
    if rates and not any(rates):
        why = "--learning_rate is 0" if not args.learning_rate else f"{warmup} of its {max_steps} steps are warm-up"
        logger.warning("the learning rate is 0 in every step, so that no weight changes: %s.", why)
    elif rates and 0 < max_steps <= warmup and max(rates) < args.learning_rate:
        logger.warning(
            "the warm-up of %d steps takes the whole run of %d: the learning rate never reaches %g. Lower "
            "--warmup_steps, or raise --max_steps.",
            warmup,
            max_steps,
            args.learning_rate,
        )
    same = same_rows(trainer.train_dataset)
    if same:
        logger.warning(
            "the first %d rows to train on are all the same, as where a short maximum length has cut them alike. "
            "Look at the data and its lengths.",
            same,
        )


def warn_if_skipped(skipped: int, steps: int) -> None:
    """Logs a warning where many of a run's steps were left out, as their loss or gradient was not finite."""
    if skipped and skipped >= MOST_SKIPPED * steps:
        what = "the model is what it was before" if skipped >= steps else "less was learned than the steps say"
        logger.warning(
            "%d of %d steps changed no weight, as their loss or gradient was not finite: %s. Lower --learning_rate or "
            "raise --warmup_steps, and look for damaged text.",
            skipped,
            steps,
            what,
        )


def same_rows(rows: Any) -> int:
    """How many rows of tokens are one and the same, from the first on, if all that are looked at are; else 0."""
    if not isinstance(rows, Sized) or not hasattr(rows, "__getitem__") or len(rows) < 2:
        return 0
    first = _tokens(rows[0])
    count = min(len(rows), MOST_ROWS)
    alike = first is not None and all(_tokens(rows[number]) == first for number in range(1, count))
    return count if alike else 0


def _tokens(row: Any) -> tuple[Any, ...] | None:
    """What a row feeds to a model; None where it has no ids of tokens."""
    if not hasattr(row, "keys") or "input_ids" not in row.keys():  # noqa: SIM118 - BatchFeature is no mapping
        return None
    names = [name for name in ("input_ids", "labels", "label", "decoder_input_ids") if name in row.keys()]  # noqa: SIM118
    return tuple(value.tolist() if hasattr(value := row[name], "tolist") else value for name in names)


def _rates(trainer: "HfGptTrainer", max_steps: int) -> list[float]:
    """Learning rates of the run's steps; of a schedule that cannot be looked ahead in, those that it begins from."""
    schedule = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)
    bases = [float(group.get("initial_lr", group["lr"])) for group in trainer.optimizer.param_groups]
    if not isinstance(schedule, LambdaLR) or max_steps <= 0 or any(each is None for each in schedule.lr_lambdas):
        return bases
    steps = range(min(max_steps, MOST_STEPS))
    pairs = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    return [float(base) * factor(step) for base, factor in pairs for step in steps]
