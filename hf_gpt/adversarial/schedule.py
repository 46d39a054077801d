"""What each step trains: maximum likelihood, the discriminator alone, distillation, then the adversarial loop."""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.monitoring.outcomes import Outcome, updates


class Phase(str, Enum):
    """What a step trains."""

    LIKELIHOOD = "likelihood"
    DISCRIMINATOR = "discriminator"
    DISTILLATION = "distillation"
    ADVERSARIAL = "adversarial"


# What `Schedule.warmups` counts, in its order.
WARMUPS = ("of maximum likelihood", "at most of the discriminator alone", "of distillation")


@dataclass
class Schedule:
    """The phase of each step, and how many have been done.

    Attributes:
        args: The arguments.
        has_discriminator: Whether one is trained.
        max_steps: Steps of the whole run.
        warmup_done: Whether the discriminator's warm-up is over.
        warmup_steps: Steps that it took.
        distillation_steps: Steps of distillation so far.
        adversarial_steps: Adversarial steps so far.
        skipped_steps: Those in which the gate was shut.
        started_at: The first adversarial step.
        outcomes: What the steps did to the generator, by `Outcome`, counted.
    """

    args: AdversarialConfig = field(repr=False)
    has_discriminator: bool
    max_steps: int = 0
    warmup_done: bool = False
    warmup_steps: int = 0
    distillation_steps: int = 0
    adversarial_steps: int = 0
    skipped_steps: int = 0
    started_at: int | None = None
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def generator_updates(self) -> int:
        """Steps whose gradient changed the generator."""
        return updates(self.outcomes)

    def count(self, found: Outcome) -> None:
        """Counts what a step did to the generator."""
        self.outcomes[found.value] = self.outcomes.get(found.value, 0) + 1

    def phase(self, step: int) -> Phase:
        """What step number `step`, from 0, trains."""
        if self.args.estimator == "likelihood":
            return Phase.DISTILLATION if self.args.needs_discriminator else Phase.LIKELIHOOD
        if step < self.args.mle_warmup_steps:
            return Phase.LIKELIHOOD
        if self.has_discriminator and not self.warmup_done and self.warmup_steps < self.args.discriminator_warmup_steps:
            return Phase.DISCRIMINATOR
        if self.has_discriminator and self.distillation_steps < self.args.distillation_warmup_steps:
            return Phase.DISTILLATION
        return Phase.ADVERSARIAL

    def warmups(self, max_steps: int) -> tuple[int, int, int]:
        """Steps of MLE, at most of the discriminator alone, and of distillation, in a run of `max_steps`."""
        if self.args.estimator == "likelihood":
            return (0, 0, max_steps) if self.args.needs_discriminator else (max_steps, 0, 0)
        likelihood = min(self.args.mle_warmup_steps, max_steps)
        alone, taught = self.args.discriminator_warmup_steps, self.args.distillation_warmup_steps
        if not self.has_discriminator:
            alone = taught = 0
        alone = min(alone, max_steps - likelihood)
        return likelihood, alone, min(taught, max_steps - likelihood - alone)

    def shortage(self) -> str | None:
        """What to say of a run whose warm-ups may take all of its steps; None of any other."""
        counts = self.warmups(self.max_steps)
        if self.max_steps <= 0 or sum(counts) < self.max_steps or self.args.estimator == "likelihood":
            return None
        of_each = [f"{count} {what}" for count, what in zip(counts, WARMUPS, strict=True) if count]
        return (
            f"a run of {self.max_steps} steps may have no adversarial step: its warm-ups "
            f"are {' and '.join(of_each)}. Raise --max_steps, or lower --mle_warmup_steps, "
            "--discriminator_warmup_steps or --distillation_warmup_steps."
        )

    def discriminator_updates_due(self) -> int:
        """Updates of the discriminator before this step: all of them before the first generator step of a loop."""
        if not self.has_discriminator or self.adversarial_steps % self.args.generator_steps:
            return 0
        return self.args.discriminator_steps

    def after_warmup_step(self, auc: float | None) -> None:
        """Counts a step of the discriminator's warm-up, which a high enough AUC ends."""
        self.warmup_steps += 1
        reached = auc is not None and auc >= self.args.discriminator_warmup_auc
        self.warmup_done = reached or self.warmup_steps >= self.args.discriminator_warmup_steps

    def after_adversarial_step(self, step: int, was_skipped: bool) -> None:
        """Counts an adversarial step."""
        if self.started_at is None:
            self.started_at = step
        self.adversarial_steps += 1
        self.skipped_steps += was_skipped

    def progress(self, step: int) -> float:
        """Share of the adversarial steps that is done, from 0 to 1."""
        start = step if self.started_at is None else self.started_at
        return (step - start) / max(1, self.max_steps - 1 - start)

    def total_discriminator_updates(self) -> int:
        """Most updates that the discriminator will get, over which its learning rate is scheduled."""
        if not self.has_discriminator:
            return 0
        loops = max(0, self.max_steps - self.args.mle_warmup_steps) / self.args.generator_steps
        return max(1, self.args.discriminator_warmup_steps + int(loops * self.args.discriminator_steps))

    def state_dict(self) -> dict[str, Any]:
        """What has been done."""
        kept = {item.name for item in fields(self)} - {"args", "has_discriminator", "max_steps"}
        return {name: value for name, value in vars(self).items() if name in kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        for item in fields(self):
            # Older checkpoints hold a count more.
            if item.name in state:
                setattr(self, item.name, state[item.name])
