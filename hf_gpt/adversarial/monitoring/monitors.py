"""
Alerts of adversarial training: what is going wrong, by which metric, and what to change.

`Monitors` takes the metrics of `diagnostics` and raises alerts. It also says when to stop and which step was the best.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_gpt.errors import did_you_mean


@dataclass(frozen=True)
class Thresholds:
    """Where a metric raises an alert; None switches that alert off."""

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
    # Of as many real texts: different n-grams. Above the real rate: copies of another text, and half copies.
    min_distinct_of_data: float | None = 0.5
    max_extra_duplicates: float | None = 0.05
    max_extra_repetition: float | None = 0.5
    max_fresh_auc_rise: float | None = 0.05
    max_fooled_gap: float | None = 0.15
    # Reward gained, in units of its standard deviation at the start, while C2ST sees no progress.
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


def as_log_entry(alert: Alert) -> dict[str, Any]:
    """An alert as an entry of a trainer's log, from which reports show it."""
    named = {"alert": alert.name, "alert_value": alert.value, "alert_threshold": alert.threshold}
    return {"step": alert.step, **named, "alert_advice": alert.advice}


@dataclass(frozen=True)
class Past:
    """First and lowest value of each metric before this evaluation step, or at the first one, its own."""

    first: Mapping[str, float]
    lowest: Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """When an alert is raised: metrics, formula and threshold.

    Attributes:
        name: Of the alert.
        metrics: Those it needs, all of them.
        threshold: Field of `Thresholds`.
        value: What is compared with it, from present and past metrics.
        advice: What is wrong and what to change.
        is_below: Whether low values are the bad ones.
        is_fatal: Whether training should stop if it lasts.
        after_warmup: Whether it applies only after the discriminator's warm-up.
        only_first: Whether only the first values are judged.
        unless: A metric whose presence switches this rule off, since a better rule applies.
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
        "on held-out text the discriminator's AUC is below gate_auc (0.5 is chance), so generator steps are skipped. "
        "Start it from a pretrained model, warm it up for longer, or take more discriminator steps. If the C2ST AUC is "
        "near 0.5 too, training is done",
        is_below=True,
        after_warmup=True,
    ),
    Rule(
        "discriminator memorises",
        ("train_auc", "heldout_auc"),
        "max_auc_gap",
        lambda now, past: now["train_auc"] - now["heldout_auc"],
        "the discriminator has memorised its training texts, so its scores of new texts mean little. Raise its dropout "
        "or weight decay, lower its learning rate or number of steps, replay less, or use the R1 penalty",
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
        "it told nearly all texts apart at the first evaluation step, so rewards hardly differ between texts. Look for "
        "a difference of format or dtype, or warm the generator up by maximum likelihood first",
        only_first=True,
    ),
    Rule(
        "vanishing reward",
        ("low_contrast_share",),
        "max_low_contrast_share",
        lambda now, past: now["low_contrast_share"],
        "in many groups all texts get the same reward, which teaches nothing. Raise the sampling temperature or the "
        "group size, set --calibration_weight, or use logits instead of probabilities as the reward",
    ),
    Rule(
        "entropy collapse",
        ("entropy", "data_entropy"),
        "min_entropy_of_data",
        lambda now, past: now["entropy"] / now["data_entropy"],
        "the generator's entropy is below that of the data: it covers few modes. Raise --lambda_mle or --beta, lower "
        "--learning_rate, or go back to the best checkpoint",
        is_below=True,
        is_fatal=True,
    ),
    Rule(
        "entropy collapse",
        ("entropy",),
        "min_entropy_of_start",
        lambda now, past: now["entropy"] / past.first["entropy"],
        "the generator's entropy has fallen far below its first value. Raise --lambda_mle or --beta, lower "
        "--learning_rate, or go back to the best checkpoint",
        is_below=True,
        is_fatal=True,
        unless="data_entropy",
    ),
    Rule(
        "likelier than the data",
        ("oracle_nll", "data_entropy"),
        "min_oracle_nll_of_data",
        lambda now, past: now["oracle_nll"] / now["data_entropy"],
        "samples are more probable under the data's density than real texts are, as after a collapse or at a low "
        "temperature. Below H(p), a lower value is not better. Raise --lambda_mle",
        is_below=True,
    ),
    Rule(
        "few different n-grams",
        ("distinct_ngrams", "real_distinct_ngrams"),
        "min_distinct_of_data",
        lambda now, past: now["distinct_ngrams"] / max(now["real_distinct_ngrams"], 1),
        "as many real texts have far more different n-grams. Raise --lambda_mle or --temperature",
        is_below=True,
        is_fatal=True,
    ),
    Rule(
        "repeated texts",
        ("duplicate_rate", "real_duplicate_rate"),
        "max_extra_duplicates",
        lambda now, past: now["duplicate_rate"] - now["real_duplicate_rate"],
        "the generator repeats whole texts. Raise --lambda_mle or --temperature, or go back to the best checkpoint",
        is_fatal=True,
    ),
    Rule(
        "repeated texts",
        ("repetition_rate", "real_repetition_rate"),
        "max_extra_repetition",
        lambda now, past: now["repetition_rate"] - now["real_repetition_rate"],
        "the generator repeats passages. Raise --lambda_mle or --temperature, or go back to the best checkpoint",
        is_fatal=True,
    ),
    Rule(
        "reward hacking",
        ("fresh_auc",),
        "max_fresh_auc_rise",
        lambda now, past: now["fresh_auc"] - past.lowest["fresh_auc"],
        "the C2ST AUC has risen: the generator moves away from the data. Go back to the best checkpoint, take more "
        "discriminator steps, raise --replay_fraction or --lambda_mle",
        is_fatal=True,
    ),
    Rule(
        "fooled discriminator",
        ("fresh_auc", "heldout_auc"),
        "max_fooled_gap",
        lambda now, past: now["fresh_auc"] - now["heldout_auc"],
        "C2ST tells texts apart that the discriminator does not: the generator exploits its reward. Take more "
        "discriminator steps, lower --replay_fraction, or start the discriminator again",
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
        "the reward rises while the C2ST AUC does not fall. Take more discriminator steps, or a larger or "
        "pretrained discriminator",
    ),
    Rule(
        "length drift",
        ("length_drift",),
        "max_length_drift",
        lambda now, past: now["length_drift"],
        "generated texts have become longer or shorter than real ones. Check that both end the same way, use a "
        "--normalization that does not reward length, or raise --lambda_mle",
    ),
    Rule(
        "forgetting",
        ("heldout_nll",),
        "max_nll_rise",
        lambda now, past: now["heldout_nll"] / past.first["heldout_nll"] - 1,
        "the held-out loss is above that of the generator before adversarial training. Raise --lambda_mle or lower "
        "--learning_rate",
        is_fatal=True,
    ),
    Rule(
        "sampler and trainer disagree",
        ("logp_mismatch",),
        "max_logp_mismatch",
        lambda now, past: now["logp_mismatch"],
        "log-probabilities of the sampler differ from those of the training pass, so the gradient is biased. Sample in "
        "the dtype of training, without dropout, with the arguments' temperature, top-k, top-p and min-p. A "
        "rollout_function must give the log-probabilities of the distribution it sampled from",
    ),
    Rule(
        "copied texts",
        ("copy_rate", "real_copy_rate", "real_copy_deviation"),
        "max_copying_deviations",
        lambda now, past: (now["copy_rate"] - now["real_copy_rate"]) / max(now["real_copy_deviation"], 1e-12),
        "more generated than held-out real texts are copies of training texts. Stop the MLE warm-up earlier, add "
        "dropout or weight decay, or lower --lambda_mle",
    ),
)

METRICS: tuple[str, ...] = tuple(sorted({name for rule in RULES for name in rule.metrics}))


@dataclass
class Monitors:
    """Raises alerts from the metrics of a run.

    Entropies and likelihoods may be in nats per token or per text, all in the same unit.

    Attributes:
        thresholds: Where alerts begin.
        patience: Evaluation steps in a row with a fatal alert after which `should_stop` is True.
        warmup_steps: Steps in which the discriminator may be useless.
        best_metric: Chooses the best step among those without a fatal alert, such as "fresh_auc". None: the last one.
        greater_is_better: Whether `best_metric` is to be high.
        first: Values that later ones are compared with, such as those before adversarial training. Others are added
            at their first evaluation step.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    patience: int = 3
    warmup_steps: int = 0
    best_metric: str | None = None
    greater_is_better: bool = False
    first: dict[str, float] = field(default_factory=dict)
    lowest: dict[str, float] = field(default_factory=dict, init=False)
    latest: dict[str, float] = field(default_factory=dict, init=False)
    alerts: list[Alert] = field(default_factory=list, init=False)
    best_step: int | None = field(default=None, init=False)
    best_value: float | None = field(default=None, init=False)
    fatal_in_a_row: int = field(default=0, init=False)

    def update(self, step: int, **metrics: float) -> list[Alert]:
        """Takes the metrics of a step and returns its alerts.

        A rule applies where all of its metrics are given, so costly metrics may come less often than cheap ones.

        Args:
            step: Of the generator.
            **metrics: By the names in `METRICS`, and `best_metric`; None and NaN count as not given.

        Raises:
            ValueError: There is no such metric.
        """
        known = {*METRICS, self.best_metric}
        for name in metrics:
            if name not in known:
                raise ValueError(f"there is no metric {name!r}{did_you_mean(name, METRICS)}")
        now = {name: float(value) for name, value in metrics.items() if value is not None and value == value}
        self.latest |= now
        past = Past(now | self.first, now | self.lowest)
        raised = [alert for rule in RULES if (alert := self._judge(rule, step, now, past)) is not None]
        self.first = dict(past.first)
        self.lowest = {name: min(value, now.get(name, value)) for name, value in past.lowest.items()}
        self.alerts += raised
        self._keep_score(step, now, raised)
        return raised

    @property
    def should_stop(self) -> bool:
        """Whether there were fatal alerts at `patience` evaluation steps in a row; `best_step` is the one to keep."""
        return self.fatal_in_a_row >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """The state, fit for JSON."""
        names = ("first", "lowest", "latest", "best_step", "best_value", "fatal_in_a_row")
        state = {name: getattr(self, name) for name in names}
        return state | {"warnings": [dataclasses.asdict(alert) for alert in self.alerts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        for name, value in state.items():
            if name != "warnings":
                setattr(self, name, dict(value) if isinstance(value, Mapping) else value)
        # Files keep the former name.
        self.alerts = [Alert(**alert) for alert in state["warnings"]]

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
        fatal = any(alert.is_fatal for alert in raised)
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
                improvement = value - self.best_value if self.greater_is_better else self.best_value - value
                if improvement <= 0:
                    return
        self.best_step, self.best_value = step, value
