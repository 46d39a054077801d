"""From records of models on tasks to rows of results: metrics with intervals, and differences with tests."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from hf_gpt.evaluation.statistics.bootstrap import MetricValues, bootstrap, difference, holm, interval, means
from hf_gpt.evaluation.tasks.metrics import MEANINGS, metrics_of
from hf_gpt.evaluation.tasks.registry import TaskSpec
from hf_gpt.evaluation.tasks.runner import Record


REAL = "real texts"
Row = dict[str, Any]


def task_results(
    spec: TaskSpec, records: Mapping[str, Record], resamples: int, seed: int = 0
) -> tuple[list[Row], list[Row]]:
    """The metrics of all models on a task, and the differences between every two models.

    Args:
        spec: The task.
        records: Of each model.
        resamples: Of the bootstrap; 0: no intervals and tests.
        seed: Of the resamples.

    Returns:
        Rows with `task`, `model`, `metric`, `value`, `low`, `high` (95 %), `interval` (what it is over: items or
        seeds), `items` and `seeds`; rows with `task`, `metric`, `first`, `second`, `difference`, `low`, `high`,
        `p_value` and `method`. Intervals that cannot be given are None.
    """
    if spec.kind == "unconditional":
        return _of_samples(spec, records)
    metrics = {model: metrics_of(spec, record) for model, record in records.items()}
    seeds = {model: len(record.get("seeds", ())) for model, record in records.items()}
    return results_over_items(spec.name, metrics, seeds, resamples, seed)


def results_over_items(
    task: str, metrics: Mapping[str, MetricValues], seeds: Mapping[str, int], resamples: int, seed: int = 0
) -> tuple[list[Row], list[Row]]:
    """As `task_results`, of metrics over items."""
    resampled = bootstrap(metrics, resamples, seed) if resamples else {}
    rows, values = [], {}
    for model, each in metrics.items():
        values[model] = each.value()
        for name, value in values[model].items():
            low, high = interval(resampled[model][name]) if resampled else (None, None)
            kind = "items" if resampled else None
            rows.append(_row(task, model, name, value, low, high, kind, each.count, seeds.get(model, 0)))
    compared = []
    for first, second in combinations(metrics, 2):
        for name in values[first]:
            if not resampled or name not in values[second] or name not in MEANINGS:
                continue
            gap = values[first][name] - values[second][name]
            found = difference(gap, resampled[first][name], resampled[second][name])
            compared.append(_difference(task, name, first, second, gap, found.low, found.high, found.p_value, "items"))
    return rows, compared


def with_adjusted(comparisons: Sequence[Row]) -> list[Row]:
    """The differences with `p_adjusted`, for how many there are of them all (Holm)."""
    adjusted = holm([row["p_value"] for row in comparisons])
    return [{**row, "p_adjusted": p} for row, p in zip(comparisons, adjusted, strict=True)]


def _of_samples(spec: TaskSpec, records: Mapping[str, Record]) -> tuple[list[Row], list[Row]]:
    """Texts come in no pairs: intervals and tests are over seeds, or the metric's own."""
    rows, by_seed = [], {}
    for model, record in records.items():
        runs = record["metrics"]
        for name in runs[0]:
            values = [run[name] for run in runs]
            by_seed[model, name] = values
            if name.endswith(("_low", "_high")):
                continue
            low, high, kind = _over_seeds(name, values)
            if f"{name}_low" in runs[0]:
                # Seeds share the real texts, so their spread alone would be too narrow.
                ends = [fmean(run[f"{name}_{end}"] for run in runs) for end in ("low", "high")]
                low, high = (
                    min(ends[0], ends[0] if low is None else low),
                    max(ends[1], ends[1] if high is None else high),
                )
                kind = "metric" if kind is None else "metric and seeds"
            rows.append(
                _row(spec.name, model, name, fmean(values), low, high, kind, len(record["texts"][0]), len(runs))
            )
    compared = []
    for first, second in combinations([model for model in records if model != REAL], 2):
        for name in records[first]["metrics"][0]:
            ours, theirs = by_seed[first, name], by_seed[second, name]
            if name not in MEANINGS or min(len(ours), len(theirs)) < 2:
                continue
            if stdev(ours) + stdev(theirs) <= 1e-9 * max(map(abs, [*ours, *theirs])):
                # Seeds that change nothing leave no test.
                continue
            from scipy.stats import ttest_ind

            with warnings.catch_warnings():
                # One of the two may be the same for every seed.
                warnings.simplefilter("ignore", RuntimeWarning)
                test = ttest_ind(ours, theirs, equal_var=False)
                limits = test.confidence_interval()
            gap = fmean(ours) - fmean(theirs)
            compared.append(
                _difference(
                    spec.name, name, first, second, gap, limits.low, limits.high, float(test.pvalue), "seeds (Welch)"
                )
            )
    return rows, compared


def _over_seeds(name: str, values: Sequence[float]) -> tuple[float | None, float | None, str | None]:
    """Student's 95 % interval of the mean, within the metric's range; none for fewer than two seeds."""
    if len(values) < 2:
        return None, None, None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    low, high = fmean(values) - half, fmean(values) + half
    if name in MEANINGS and MEANINGS[name].largest < math.inf:
        low, high = max(low, 0.0), min(high, MEANINGS[name].largest)
    return low, high, "seeds"


def harness_results(
    task: str, records: Mapping[str, Record], resamples: int, seed: int = 0
) -> tuple[list[Row], list[Row]]:
    """As `task_results`, of a task that the LM evaluation harness did: what is a mean over items gets an interval."""
    metrics = {model: means(record["scores"]) for model, record in records.items() if record["scores"]}
    rows, compared = results_over_items(task, metrics, {}, resamples, seed) if metrics else ([], [])
    for model, record in records.items():
        for name, value in record["aggregates"].items():
            if name not in record["scores"]:
                rows.append(_row(task, model, name, value, None, None, None, record["items"], 0))
    return rows, compared


def _row(task, model, metric, value, low, high, kind, items, seeds) -> Row:
    return {
        "task": task,
        "model": model,
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "interval": kind,
        "items": items,
        "seeds": seeds,
    }


def _difference(task, metric, first, second, value, low, high, p_value, method) -> Row:
    return {
        "task": task,
        "metric": metric,
        "first": first,
        "second": second,
        "difference": value,
        "low": low,
        "high": high,
        "p_value": p_value,
        "method": method,
    }
