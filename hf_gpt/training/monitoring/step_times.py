"""What a run would take, from a few steps of each kind that are done and timed."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from hf_gpt.training.monitoring.throughput import format_count, format_duration, peak_memory


if TYPE_CHECKING:
    from hf_gpt.training.trainer import HfGptTrainer


TIMED_STEPS = 4

# Steps of each kind that are done before: the first ones pay for what later ones reuse.
_UNTIMED_STEPS = 2


@dataclass(frozen=True)
class Stretch:
    """`steps` in a row that do the same work, of which `timed` are timed.

    `what` says what they train, where a run has several stretches.
    """

    steps: int
    what: str = ""
    timed: int = TIMED_STEPS

    @property
    def tried(self) -> int:
        """How many a dry run does."""
        return self.timed + _UNTIMED_STEPS


def time_steps(trainer: "HfGptTrainer", stretches: Sequence[Stretch]) -> list[tuple[str, str]]:
    """Does a few steps of each stretch and adds up what the whole run would take, as pairs of a name and a line.

    The trainer is made to do `tried` steps of each stretch, one stretch after another.
    """
    from transformers import EarlyStoppingCallback, TrainerCallback
    from transformers.trainer_utils import IntervalStrategy, SaveStrategy

    class Clock(TrainerCallback):
        def __init__(self):
            self.times: list[float] = []
            self.tokens: list[int] = []

        def on_step_end(self, args, state, control, **kwargs):
            self.times.append(perf_counter())
            self.tokens.append(trainer.meter.tokens)

    clock, args = Clock(), trainer.args
    trainer.add_callback(clock)
    trainer.remove_callback(EarlyStoppingCallback)
    args.save_strategy, args.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
    args.logging_strategy, args.logging_first_step = IntervalStrategy.NO, False
    args.max_steps = sum(stretch.tried for stretch in stretches)
    trainer.train()
    shown, seconds, tokens, end = [], 0.0, 0.0, -1
    for stretch in stretches:
        begin, end = end + _UNTIMED_STEPS, end + stretch.tried
        pace = (clock.times[end] - clock.times[begin]) / stretch.timed
        shown.append(f"{pace:.3f} s a step" + (f" {stretch.what}" if stretch.what else ""))
        seconds += stretch.steps * pace
        tokens += stretch.steps * (clock.tokens[end] - clock.tokens[begin]) / stretch.timed
    steps = sum(stretch.steps for stretch in stretches)
    return [
        (
            "time",
            f"{', '.join(shown)}, {format_count(tokens / seconds)} tokens/s: {format_duration(seconds)} for {steps:,} "
            "steps, evaluation not counted",
        ),
        ("memory", f"{format_count(peak_memory())}B at most so far"),
    ]
