"""Learning rates and other settings of an optimizer, once its state has been loaded from a checkpoint."""

from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from hf_gpt import compat
from hf_gpt.errors import CheckpointError


# Settings of a group that are options of ours. Others may be state, as those of optimizers without a schedule.
_SETTINGS = ("weight_decay", "betas", "eps", "momentum")


def settings_of(optimizer: Any) -> list[dict[str, Any]]:
    """What the options say of each group of parameters; to be asked before a state is loaded, which replaces it."""
    names = (*_SETTINGS, "lr", "initial_lr")
    return [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]


def check_schedule(scheduler: Any, state: dict[str, Any]) -> None:
    """Raises `CheckpointError` where a schedule by steps would go on as one by metrics, or the other way round."""
    if ("lr_lambdas" in state) != isinstance(scheduler, LambdaLR):
        raise CheckpointError(
            "--lr_scheduler_type: a schedule that goes by steps and one that goes by metrics cannot take each other's "
            "place in a run. Resume with that of the run."
        )


def take_effect(optimizer: Any, scheduler: Any, settings: list[dict[str, Any]]) -> None:
    """Makes the options that a run has now hold, in place of those that came with the state of a checkpoint.

    The schedule's value at the present step is worked out anew: a run with more steps than before goes on at the rate
    that a run of this length has there. Without a change it is the rate that was loaded. `settings` are from
    `settings_of`, before the state was loaded.
    """
    groups = optimizer.param_groups
    for group, now in zip(groups, settings, strict=True):
        for name in _SETTINGS:
            if name in now and group.get(name) != now[name]:
                group[name] = now[name]
        before, first = group.get("initial_lr"), now.get("initial_lr")
        if first is None:
            continue
        group["initial_lr"] = first
        if not isinstance(scheduler, LambdaLR) and before and before != first:
            # A schedule that goes by metrics: as far down as it was.
            group["lr"] *= first / before
    if isinstance(scheduler, LambdaLR):
        scheduler.base_lrs = [
            now.get("initial_lr", base) for now, base in zip(settings, scheduler.base_lrs, strict=True)
        ]
        rates = [
            base * share(scheduler.last_epoch)
            for base, share in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        compat.set_last_rates(scheduler, rates)
