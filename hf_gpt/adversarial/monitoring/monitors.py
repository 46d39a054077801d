"""
Warnings of adversarial training: what is going wrong, by which figure, and what to change.

`Monitors` takes the figures of `diagnostics` as the trainer measures them, warns, closes the gate that generator steps
go through while the discriminator knows nothing, and says when to stop and which step was the best. It trains and
saves nothing itself.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_gpt.errors import did_you_mean


@dataclass(frozen=True)
class Thresholds:
    """Where a figure turns into a warning; None switches a warning off."""

    # The gate: below this held-out AUC the generator learns from noise.
    min_auc: float | None = 0.55
    max_auc_gap: float | None = 0.15
    max_shortcut_auc: float | None = 0.6
    max_first_accuracy: float | None = 0.95
    max_low_contrast_share: float | None = 0.05
    # Of H(p) where it is known, else of H(q) at the first evaluation.
    min_entropy_of_data: float | None = 0.9
    min_entropy_of_start: float | None = 0.85
    # NLL of samples under the data's own density, as a share of H(p).
    min_oracle_nll_of_data: float | None = 1.0
    # Different n-grams in as many generated as real texts; above the real rate: texts that are there already, and texts
    # that share half of themselves with another.
    min_distinct_of_data: float | None = 0.5
    max_extra_duplicates: float | None = 0.05
    max_extra_repetition: float | None = 0.5
    max_fresh_auc_rise: float | None = 0.05
    max_fooled_gap: float | None = 0.15
    # Reward gained, in units of its standard deviation at the start, while a fresh discriminator sees no progress.
    max_unearned_reward: float | None = 1.0
    max_length_drift: float | None = 0.5
    max_nll_rise: float | None = 0.05
    max_logp_mismatch: float | None = 1e-3
    # Above the rate of held-out real text, in standard deviations.
    max_copying_deviations: float | None = 2.0


@dataclass(frozen=True)
class Alert:
    """One thing that goes wrong at a step."""

    name: str
    value: float
    threshold: float
    advice: str
    step: int
    is_fatal: bool

    def __str__(self) -> str:
        return f"step {self.step}: {self.name} ({self.value:.4g} against {self.threshold:.4g}): {self.advice}"


def as_log_entry(warning: Alert) -> dict[str, Any]:
    """A warning as an entry of a trainer's log, from which pages show it."""
    named = {"alert": warning.name, "alert_value": warning.value, "alert_threshold": warning.threshold}
    return {"step": warning.step, **named, "alert_advice": warning.advice}


@dataclass(frozen=True)
class Past:
    """First and lowest value of each figure so far, the present one not counted, unless it is the first."""

    first: Mapping[str, float]
    lowest: Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """A warning: from which figures, by which formula, against which threshold.

    Attributes:
        name: Of the warning.
        metrics: Without all of these there is no verdict.
        threshold: Field of `Thresholds`.
        value: What is compared, from the present figures and the past.
        advice: What is wrong and what to change.
        is_below: Whether low values are the bad ones.
        is_fatal: Whether training should stop if it lasts.
        after_warmup: Whether it applies only once the discriminator has had its warm-up.
        only_first: Whether only the first values of its figures are judged.
        unless: A figure whose presence switches the rule off, as a better rule applies.
    """

    name: str
    metrics: tuple[str, ...]
    threshold: str
    value: Callable[[Mapping[str, float], Past], float]
    advice: str
    is_below: bool = False
    is_fatal: bool = False
    after_warmup: bool = False
    only_first: bool = False
    unless: str | None = None


RULES: tuple[Rule, ...] = (
    Rule(
        "useless discriminator",
        ("heldout_auc",),
        "min_auc",
        lambda now, past: now["heldout_auc"],
        "on held-out text the discriminator's AUC is below gate_auc (0.5 is guessing), so generator steps are skipped. "
        "Start it from a pretrained model, warm it up for longer, or take more discriminator steps; if real and "
        "generated text can hardly be told apart by a fresh one either, training is done",
        is_below=True,
        after_warmup=True,
    ),
    Rule(
        "discriminator memorises",
        ("train_auc", "heldout_auc"),
        "max_auc_gap",
        lambda now, past: now["train_auc"] - now["heldout_auc"],
        "the discriminator knows its training texts by heart, and its reward is worth little elsewhere. Raise its "
        "dropout or weight decay, lower its learning rate or number of steps, use fresh fakes or the R1 penalty",
    ),
    Rule(
        "discriminator shortcut",
        ("shortcut_auc",),
        "max_shortcut_auc",
        lambda now, past: now["shortcut_auc"],
        "length and special tokens alone tell real from generated text. Give both the same padding, truncation, "
        "maximum length and end-of-text token",
    ),
    Rule(
        "discriminator too sure at the start",
        ("discriminator_accuracy",),
        "max_first_accuracy",
        lambda now, past: now["discriminator_accuracy"],
        "it told nearly all texts apart from the first measurement on: look for a difference of format or of dtype, "
        "or warm the generator up on likelihood first; a reward from so sure a judge hardly differs between texts",
        only_first=True,
    ),
    Rule(
        "vanishing reward",
        ("low_contrast_share",),
        "max_low_contrast_share",
        lambda now, past: now["low_contrast_share"],
        "many groups get one reward for all their texts, from which nothing can be learned. Raise the sampling "
        "temperature or the group size, add the GRGC calibration to the discriminator's loss, or read logits and "
        "not probabilities as the reward",
    ),
    Rule(
        "entropy collapse",
        ("entropy", "data_entropy"),
        "min_entropy_of_data",
        lambda now, past: now["entropy"] / now["data_entropy"],
        "the generator's entropy is below that of the data: it keeps to a few modes. Raise the weight of the "
        "likelihood anchor or of the KL penalty, lower the generator's learning rate, or go back to the best "
        "checkpoint",
        is_below=True,
        is_fatal=True,
    ),
    Rule(
        "entropy collapse",
        ("entropy",),
        "min_entropy_of_start",
        lambda now, past: now["entropy"] / past.first["entropy"],
        "the generator's entropy has fallen far below where it began. Raise the weight of the likelihood anchor or "
        "of the KL penalty, lower the generator's learning rate, or go back to the best checkpoint",
        is_below=True,
        is_fatal=True,
        unless="data_entropy",
    ),
    Rule(
        "likelier than the data",
        ("oracle_nll", "data_entropy"),
        "min_oracle_nll_of_data",
        lambda now, past: now["oracle_nll"] / now["data_entropy"],
        "samples are more probable under the data's density than real texts are, as a collapsed or a cold "
        "generator's would be: the figure says nothing good below H(p). Raise the weight of the likelihood anchor",
        is_below=True,
    ),
    Rule(
        "few different n-grams",
        ("distinct_ngrams", "real_distinct_ngrams"),
        "min_distinct_of_data",
        lambda now, past: now["distinct_ngrams"] / max(now["real_distinct_ngrams"], 1),
        "as many real texts hold many more different n-grams. Raise the weight of the likelihood anchor or the "
        "sampling temperature",
        is_below=True,
        is_fatal=True,
    ),
    Rule(
        "repeated texts",
        ("duplicate_rate", "real_duplicate_rate"),
        "max_extra_duplicates",
        lambda now, past: now["duplicate_rate"] - now["real_duplicate_rate"],
        "the generator writes the same texts again and again. Raise the weight of the likelihood anchor or the "
        "sampling temperature, or go back to the best checkpoint",
        is_fatal=True,
    ),
    Rule(
        "repeated texts",
        ("repetition_rate", "real_repetition_rate"),
        "max_extra_repetition",
        lambda now, past: now["repetition_rate"] - now["real_repetition_rate"],
        "the generator writes the same passages again and again. Raise the weight of the likelihood anchor or the "
        "sampling temperature, or go back to the best checkpoint",
        is_fatal=True,
    ),
    Rule(
        "reward hacking",
        ("fresh_auc",),
        "max_fresh_auc_rise",
        lambda now, past: now["fresh_auc"] - past.lowest["fresh_auc"],
        "a discriminator trained afresh tells the texts apart better than before: the generator moves away from the "
        "data. Go back to the best checkpoint; take more discriminator steps, replay old fakes, raise the anchor",
        is_fatal=True,
    ),
    Rule(
        "fooled discriminator",
        ("fresh_auc", "heldout_auc"),
        "max_fooled_gap",
        lambda now, past: now["fresh_auc"] - now["heldout_auc"],
        "a discriminator trained afresh sees what the one in training does not: the reward is being gamed. Take "
        "more discriminator steps, replay fewer old fakes, or start it again",
    ),
    Rule(
        "frozen discriminator disagrees",
        ("frozen_auc", "heldout_auc"),
        "max_fooled_gap",
        lambda now, past: now["frozen_auc"] - now["heldout_auc"],
        "the discriminator of the start still sees what the one in training has forgotten. Replay more old fakes "
        "and lower the discriminator's learning rate",
    ),
    Rule(
        "unearned reward",
        ("reward", "reward_std", "fresh_auc"),
        "max_unearned_reward",
        lambda now, past: (
            (now["reward"] - past.first["reward"]) / max(past.first["reward_std"], 1e-6)
            if now["fresh_auc"] > past.first["fresh_auc"] - 0.01
            else 0.0
        ),
        "the reward rises while a discriminator trained afresh tells the texts apart as well as at the start. Take "
        "more discriminator steps, or a larger or pretrained discriminator",
    ),
    Rule(
        "length drift",
        ("length_drift",),
        "max_length_drift",
        lambda now, past: now["length_drift"],
        "generated texts have become longer or shorter than real ones. Check that real and generated text end the "
        "same way; use a normalisation that does not reward length, or raise the anchor",
    ),
    Rule(
        "forgetting",
        ("heldout_nll",),
        "max_nll_rise",
        lambda now, past: now["heldout_nll"] / past.first["heldout_nll"] - 1,
        "the likelihood of held-out text has fallen against that of the model before adversarial training. Raise "
        "the weight of the likelihood anchor or lower the generator's learning rate",
        is_fatal=True,
    ),
    Rule(
        "sampler and trainer disagree",
        ("logp_mismatch",),
        "max_logp_mismatch",
        lambda now, past: now["logp_mismatch"],
        "log-probabilities of the sampler differ from those of the training pass, so that the gradient belongs to "
        "another distribution. Sample in the dtype of training, without dropout, at the temperature, top-k, top-p and "
        "min-p of the arguments; a rollout_function gives the log-probabilities of what it sampled from",
    ),
    Rule(
        "copied texts",
        ("copy_rate", "real_copy_rate", "real_copy_deviation"),
        "max_copying_deviations",
        lambda now, past: (now["copy_rate"] - now["real_copy_rate"]) / max(now["real_copy_deviation"], 1e-12),
        "generated texts stand word for word in the training data more often than held-out real ones do. Stop the "
        "likelihood warm-up earlier, add dropout or weight decay, or lower the weight of the anchor",
    ),
    Rule(
        "copied n-grams",
        ("ngram_overlap", "real_ngram_overlap", "real_ngram_deviation"),
        "max_copying_deviations",
        lambda now, past: (now["ngram_overlap"] - now["real_ngram_overlap"]) / max(now["real_ngram_deviation"], 1e-12),
        "generated texts share more 4-grams with the training data than held-out real ones do. Stop the likelihood "
        "warm-up earlier, add dropout or weight decay",
    ),
)

METRICS: tuple[str, ...] = tuple(sorted({name for rule in RULES for name in rule.metrics}))


@dataclass
class Monitors:
    """Watches the figures of a run.

    Entropies and likelihoods may be in nats a token or a text, as long as all of them are in the same unit.

    Attributes:
        thresholds: Where warnings begin.
        patience: Evaluations in a row with a fatal warning after which `should_stop` is True.
        warmup_steps: Steps before which a discriminator may be useless.
        best_metric: What tells the best step among those without a fatal warning, such as "fresh_auc"; left out: the
            last of them is the best.
        greater_is_better: Whether `best_metric` is to be high.
        first: Values that later ones are compared with. Given ones count from the start, as those of the model before
            adversarial training; others are the first that come.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    patience: int = 3
    warmup_steps: int = 0
    best_metric: str | None = None
    greater_is_better: bool = False
    first: dict[str, float] = field(default_factory=dict)
    lowest: dict[str, float] = field(default_factory=dict, init=False)
    latest: dict[str, float] = field(default_factory=dict, init=False)
    warnings: list[Alert] = field(default_factory=list, init=False)
    best_step: int | None = field(default=None, init=False)
    best_value: float | None = field(default=None, init=False)
    fatal_in_a_row: int = field(default=0, init=False)

    def update(self, step: int, **metrics: float) -> list[Alert]:
        """Takes the figures of a step and says what is wrong with them.

        Only warnings for which all figures are given are judged, so that cheap ones may come more often than dear ones.

        Args:
            step: Of the generator.
            **figures: By the names in `METRICS`, and `best_metric`; None and NaN count as not given.

        Raises:
            ValueError: There is no such figure.
        """
        known = {*METRICS, self.best_metric}
        for name in metrics:
            if name not in known:
                raise ValueError(f"there is no figure {name!r}{did_you_mean(name, METRICS)}")
        now = {name: float(value) for name, value in metrics.items() if value is not None and value == value}
        self.latest |= now
        past = Past(now | self.first, now | self.lowest)
        raised = [warning for rule in RULES if (warning := self._judge(rule, step, now, past)) is not None]
        self.first = dict(past.first)
        self.lowest = {name: min(value, now.get(name, value)) for name, value in past.lowest.items()}
        self.warnings += raised
        self._keep_score(step, now, raised)
        return raised

    @property
    def gate_open(self) -> bool:
        """Whether the generator may learn: not before a held-out AUC is known, nor while it is below `min_auc`."""
        floor = self.thresholds.min_auc
        return floor is None or self.latest.get("heldout_auc", 0.0) >= floor

    @property
    def should_stop(self) -> bool:
        """Whether a fatal warning has stood for `patience` evaluations; the checkpoint to keep is `best_step`'s."""
        return self.fatal_in_a_row >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """All that has been seen, fit for JSON."""
        names = ("first", "lowest", "latest", "best_step", "best_value", "fatal_in_a_row")
        state = {name: getattr(self, name) for name in names}
        return state | {"warnings": [dataclasses.asdict(warning) for warning in self.warnings]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        for name, value in state.items():
            setattr(self, name, dict(value) if isinstance(value, Mapping) else value)
        self.warnings = [Alert(**warning) for warning in state["warnings"]]

    def _judge(self, rule: Rule, step: int, now: Mapping[str, float], past: Past) -> Alert | None:
        threshold = getattr(self.thresholds, rule.threshold)
        if threshold is None or not all(name in now for name in rule.metrics) or rule.unless in now:
            return None
        if rule.after_warmup and step < self.warmup_steps:
            return None
        if rule.only_first and any(name in self.first for name in rule.metrics):
            return None
        value = rule.value(now, past)
        if not (value < threshold if rule.is_below else value > threshold):
            return None
        return Alert(rule.name, value, threshold, rule.advice, step, rule.is_fatal)

    def _keep_score(self, step: int, now: Mapping[str, float], raised: list[Alert]) -> None:
        fatal = any(warning.is_fatal for warning in raised)
        judged = any(all(name in now for name in rule.metrics) for rule in RULES if rule.is_fatal)
        if judged:
            self.fatal_in_a_row = self.fatal_in_a_row + 1 if fatal else 0
        if fatal or (self.best_metric is None and not judged):
            return
        value = None if self.best_metric is None else now.get(self.best_metric)
        if self.best_metric is not None:
            if value is None:
                return
            if self.best_value is not None:
                gain = value - self.best_value if self.greater_is_better else self.best_value - value
                if gain <= 0:
                    return
        self.best_step, self.best_value = step, value
