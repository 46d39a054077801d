"""What each step did to the generator, counted. A run may take all of its steps and train nothing."""

import math
from collections.abc import Mapping
from enum import Enum


# Below this share of steps a run is said to have hardly trained its generator.
LEAST_SHARE = 0.1


class Outcome(str, Enum):
    """What a step did to the generator, or why it did nothing."""

    ADVERSARIAL = "adversarial_update"
    LIKELIHOOD = "likelihood_update"
    DISCRIMINATOR_ALONE = "discriminator_warmup"
    GATE = "gate_shut"
    NON_FINITE = "non_finite"
    ZERO_RATE = "zero_learning_rate"
    ZERO_GRADIENT = "zero_gradient"


_UPDATES = (Outcome.ADVERSARIAL, Outcome.LIKELIHOOD)
# Steps without a loss of the generator.
WITHOUT_LOSS = (Outcome.DISCRIMINATOR_ALONE, Outcome.GATE)
# How a count of each is told, for one step and for more.
_WORDS = {
    Outcome.DISCRIMINATOR_ALONE: "the discriminator was warmed up alone in {}",
    Outcome.GATE: "the gate was shut in {}",
    Outcome.NON_FINITE: "loss or gradient was not finite in {}",
    Outcome.ZERO_RATE: "the learning rate was 0 in {}",
    Outcome.ZERO_GRADIENT: "the gradient was 0 in {}",
}


def outcome(*, alone: bool, by_likelihood: bool, gated: bool, grad_norm: float | None, learning_rate: float) -> Outcome:
    """What a step does to the generator, known just before the optimizer's step.

    Args:
        alone: Whether it trains the discriminator alone.
        by_likelihood: Whether it trains the generator by MLE or distillation alone.
        gated: Whether the gate leaves the generator alone.
        grad_norm: Of the generator's gradient over all processes; None where it is not known.
        learning_rate: The highest of the generator's parameters.
    """
    if alone:
        return Outcome.DISCRIMINATOR_ALONE
    if gated:
        return Outcome.GATE
    if grad_norm is not None and not math.isfinite(grad_norm):
        return Outcome.NON_FINITE
    if not learning_rate:
        return Outcome.ZERO_RATE
    if grad_norm == 0:
        return Outcome.ZERO_GRADIENT
    return Outcome.LIKELIHOOD if by_likelihood else Outcome.ADVERSARIAL


def updates(counts: Mapping[str, int]) -> int:
    """Steps that updated the generator."""
    return sum(counts.get(each.value, 0) for each in _UPDATES)


def steps_with_loss(counts: Mapping[str, int]) -> int:
    """Steps in which the generator had a loss."""
    return sum(count for name, count in counts.items() if Outcome(name) not in WITHOUT_LOSS)


def describe(counts: Mapping[str, int]) -> str:
    """One line: how many of the steps updated the generator, and why the others did not."""
    steps, likelihood = sum(counts.values()), counts.get(Outcome.LIKELIHOOD.value, 0)
    line = f"generator updated {updates(counts):,} of {steps:,} steps"
    if likelihood:
        number = "all" if likelihood == updates(counts) else f"{likelihood:,}"
        line += f", {number} of them by maximum likelihood alone"
    reasons = [words.format(_steps(counts[each.value])) for each, words in _WORDS.items() if counts.get(each.value)]
    return f"{line} ({'; '.join(reasons)})" if reasons else line


def complaint(counts: Mapping[str, int], is_likelihood: bool = False) -> str | None:
    """What to say of a run that hardly trained the generator against the discriminator; None for other runs.

    Args:
        counts: Steps by outcome.
        is_likelihood: Whether the run is one of maximum likelihood alone.
    """
    if is_likelihood:
        return None
    likelihood, steps = counts.get(Outcome.LIKELIHOOD.value, 0), sum(counts.values())
    others = steps - likelihood
    if not others or counts.get(Outcome.ADVERSARIAL.value, 0) >= LEAST_SHARE * others:
        return None
    if not updates(counts):
        found = f"The generator was never updated and is what it was before: {describe(counts)}."
    else:
        found = f"The generator has hardly been trained against the discriminator: {describe(counts)}."
    causes = {each: counts.get(each.value, 0) for each in _WORDS}
    cause = max(causes, key=causes.get)
    if cause is Outcome.ZERO_RATE and likelihood > causes[cause]:
        # Only the first steps have a rate of 0.
        cause = Outcome.LIKELIHOOD
    return f"{found} {_ADVICE[cause]}"


_ADVICE = {
    Outcome.GATE: "It was shut while the discriminator's AUC on held-out texts was unknown or below --gate_auc. Warm "
    "it up for longer (--discriminator_warmup_steps), start it from a pretrained model, give more texts, or lower "
    "--gate_auc; near an AUC of 0.5 its gradient is noise.",
    Outcome.LIKELIHOOD: "Raise --max_steps, or lower --mle_warmup_steps and --distillation_warmup_steps.",
    Outcome.DISCRIMINATOR_ALONE: "Raise --max_steps, or lower --discriminator_warmup_steps.",
    Outcome.NON_FINITE: "Lower --learning_rate or raise --warmup_steps.",
    Outcome.ZERO_RATE: "Set --learning_rate above 0 and --warmup_steps well below --max_steps.",
    Outcome.ZERO_GRADIENT: "All rewards may be equal: look at reward_std, and raise --group_size or --lambda_mle.",
}


def _steps(count: int) -> str:
    return f"{count:,} step" if count == 1 else f"{count:,} steps"
