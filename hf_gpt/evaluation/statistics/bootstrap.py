"""
Intervals and paired tests by resampling items.

A metric over a set of items varies with the choice of items. The bootstrap (https://doi.org/10.1214/aos/1176344552)
resamples sets of equal size with replacement. Models on the same items are compared on the same resamples
(https://aclanthology.org/W04-3250).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


_WEIGHTS_AT_A_TIME = 4_000_000


class MetricValues(ABC):
    """Metrics of a set of items that can be computed again for any multiset of them.

    Attributes:
        count: Items.
    """

    count: int

    @abstractmethod
    def of(self, weights: np.ndarray) -> dict[str, float]:
        """The metrics of items that each occur `weights` times, int64 `(count,)`."""

    def value(self) -> dict[str, float]:
        """The metrics with each item once."""
        return self.of(np.ones(self.count, np.int64))

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of many resamples: weights `(resamples, count)`, each metric float64 `(resamples,)`."""
        rows = [self.of(row) for row in weights]
        return {name: np.array([row[name] for row in rows], float) for name in rows[0]}


class Sums(MetricValues):
    """Metrics that depend only on sums over the items, such as means, ratios and corpus BLEU.

    Args:
        statistics: Float `(count, k)`.
        combine: From the sums `(k,)` to metrics.
    """

    def __init__(self, statistics: Any, combine: Callable[[np.ndarray], Mapping[str, float]]):
        self.statistics = np.asarray(statistics, float)
        self.combine = combine
        self.count = len(self.statistics)

    def of(self, weights: np.ndarray) -> dict[str, float]:
        return dict(self.combine(weights @ self.statistics))

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        rows = [self.combine(sums) for sums in weights @ self.statistics]
        return {name: np.array([row[name] for row in rows], float) for name in rows[0]}


class Recomputed(MetricValues):
    """Any metrics of predictions and references, computed again for each resample.

    Args:
        predictions, references: One of each for every item.
        compute: From predictions and references to metrics.
    """

    def __init__(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        compute: Callable[[list[Any], list[Any]], Mapping[str, float]],
    ):
        self.predictions, self.references, self.compute = list(predictions), list(references), compute
        self.count = len(self.predictions)

    def of(self, weights: np.ndarray) -> dict[str, float]:
        positions = np.repeat(np.arange(self.count), weights).tolist()
        found = self.compute([self.predictions[n] for n in positions], [self.references[n] for n in positions])
        return dict(found)


class Averaged(MetricValues):
    """The mean of the metrics of several runs over the same items, such as different seeds."""

    def __init__(self, runs: Sequence[MetricValues]):
        self.runs, self.count = list(runs), runs[0].count

    def of(self, weights: np.ndarray) -> dict[str, float]:
        found = [run.of(weights) for run in self.runs]
        return {name: float(np.mean([metrics[name] for metrics in found])) for name in found[0]}


def means(values: Mapping[str, Sequence[float]]) -> Sums:
    """Metrics that are means of a number for each item: name to numbers."""
    names = list(values)
    table = np.array([*(np.asarray(values[name], float) for name in names), np.ones(len(values[names[0]]))]).T
    return Sums(table, lambda sums: {name: float(sums[n] / sums[-1]) for n, name in enumerate(names)})


def bootstrap(metrics: Mapping[str, MetricValues], resamples: int, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """The metrics of several models on the same resamples of `count` items with replacement.

    Args:
        metrics: Of each model, all of the same items.
        resamples: How many.
        seed: Of the resamples.

    Returns:
        For each model and metric float64 `(resamples,)`.

    Raises:
        ValueError: the models have different numbers of items, or there are no resamples.
    """
    counts = {each.count for each in metrics.values()}
    if len(counts) != 1 or resamples < 1:
        raise ValueError(
            f"the models have {sorted(counts)} items, with {resamples} resamples. Give the same items, and 1 or more."
        )
    count = counts.pop()
    generator = np.random.default_rng(seed)
    parts: dict[str, list[dict[str, np.ndarray]]] = {model: [] for model in metrics}
    step = max(1, _WEIGHTS_AT_A_TIME // count)
    for first in range(0, resamples, step):
        size = min(step, resamples - first)
        weights = generator.multinomial(count, np.full(count, 1 / count), size=size)
        for model, each in metrics.items():
            parts[model].append(each.resampled(weights))
    return {
        model: {name: np.concatenate([part[name] for part in some]) for name in some[0]}
        for model, some in parts.items()
    }


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled metrics; NaN if one of them is."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """A metric of one model minus that of another, on the same items.

    Attributes:
        value: The difference.
        low, high: Its 95 % interval.
        p_value: Two-sided, of no difference.
    """

    value: float
    low: float
    high: float
    p_value: float


def difference(value: float, first: np.ndarray, second: np.ndarray) -> Difference:
    """The paired bootstrap test.

    Args:
        value: With each item once.
        first, second: A metric of both models on the same resamples.

    Returns:
        The difference. Its p-value is twice the smaller share of resamples on either side of zero, with one added to
        the counts, since a p-value is never 0 (https://doi.org/10.2202/1544-6115.1585).
    """
    with np.errstate(invalid="ignore"):
        gaps = first - second
    # NaN, such as the gap of two infinite values, is on neither side.
    smaller = min(int((~(gaps > 0)).sum()), int((~(gaps < 0)).sum()))
    return Difference(value, *interval(gaps), min(1.0, 2 * (smaller + 1) / (len(gaps) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction for their number (https://www.jstor.org/stable/4615733)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted.tolist()
