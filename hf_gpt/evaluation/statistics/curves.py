"""
Quality and diversity of generators over the settings of their samplers.

One point of a generator says little: temperature moves it along a curve. Compare curves: quality at equal diversity,
the area they dominate, or each model at its own best setting (https://arxiv.org/abs/1811.02549).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal


Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Point:
    """One model with one setting of its sampler.

    Attributes:
        model: Its name.
        setting: Of the sampler, such as `"temperature=0.7"`.
        quality, diversity: Two metrics of the same sample.
        seed: Of training and sampling.
    """

    model: str
    setting: str
    quality: float
    diversity: float
    seed: int = 0


@dataclass(frozen=True)
class Plane:
    """What the two axes are and which way is better.

    Attributes:
        quality_name, diversity_name: For labels.
        quality, diversity: `"higher"` or `"lower"`. By default BLEU against self-BLEU.
    """

    quality_name: str = "BLEU-5"
    diversity_name: str = "self-BLEU-5"
    quality: Better = "higher"
    diversity: Better = "lower"

    def __post_init__(self):
        for name in ("quality", "diversity"):
            if getattr(self, name) not in ("higher", "lower"):
                raise ValueError(f"{name} must be 'higher' or 'lower', got {getattr(self, name)!r}.")

    def oriented(self, point: Point) -> tuple[float, float]:
        """Diversity and quality with signs such that more of either is better."""
        return (
            point.diversity if self.diversity == "higher" else -point.diversity,
            point.quality if self.quality == "higher" else -point.quality,
        )


SELF_BLEU = Plane()


def by_model(points: Iterable[Point]) -> dict[str, list[Point]]:
    """The points of each model, in the order in which the models come."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.model, []).append(point)
    return groups


def pareto_front(points: Sequence[Point], plane: Plane = SELF_BLEU) -> list[Point]:
    """The points that no other one equals or surpasses in both, by falling diversity; one of several that are equal.

    Raises:
        ValueError: there are no points, or a value is not finite.
    """
    _check(points)
    front: list[Point] = []
    best = -math.inf
    for point in sorted(points, key=plane.oriented, reverse=True):
        quality = plane.oriented(point)[1]
        if quality > best:
            front.append(point)
            best = quality
    return front


def hypervolume(points: Sequence[Point], reference: tuple[float, float], plane: Plane = SELF_BLEU) -> float:
    """Area between the Pareto front and a reference point (https://doi.org/10.1109/4235.797969).

    Args:
        points: Of one model.
        reference: Quality and diversity that every model beats, the same for all models that are compared. Points that
            do not beat it in both add nothing.
        plane: Which way is better.

    Raises:
        ValueError: there are no points, or a value is not finite.
    """
    corner = plane.oriented(Point("", "", reference[0], reference[1]))
    area, height = 0.0, corner[1]
    for point in pareto_front(points, plane):
        diversity, quality = plane.oriented(point)
        if diversity > corner[0] and quality > height:
            area += (diversity - corner[0]) * (quality - height)
            height = quality
    return area


def common_reference(points: Sequence[Point], plane: Plane = SELF_BLEU) -> tuple[float, float]:
    """The worst quality and the worst diversity among all points: a reference for `hypervolume`.

    Raises:
        ValueError: there are no points, or a value is not finite.
    """
    _check(points)
    worst: Callable[..., float] = min if plane.quality == "higher" else max
    least: Callable[..., float] = min if plane.diversity == "higher" else max
    return worst(point.quality for point in points), least(point.diversity for point in points)


@dataclass(frozen=True)
class Best:
    """A model at its own best setting by one metric.

    Attributes:
        model, metric, setting: Which.
        mean, spread: Of the reported values over seeds; the spread is their standard deviation, 0 for one seed.
        seeds: How many.
    """

    model: str
    metric: str
    setting: str
    mean: float
    spread: float
    seeds: int


def super_baseline(
    chosen_by: Sequence[Mapping[str, Any]], reported: Sequence[Mapping[str, Any]], metrics: Mapping[str, Better]
) -> list[Best]:
    """Each model at the setting that is best for it, for each metric separately.

    The protocol asks for a model that beats the best of all settings of the other, not one of them. Settings are chosen
    on one set of values (validation) and reported on another (test), or the choice itself would raise them.

    Args:
        chosen_by: Rows with `model`, `setting` and the metrics, one for each seed; settings are chosen by their means.
        reported: Rows of the same kind, for the values in the result.
        metrics: Names, and which way is better.

    Returns:
        One entry for each model and metric.

    Raises:
        ValueError: there are no rows, a row lacks a metric or has one that is not finite, or the best setting is not
            among the reported rows.
    """
    choices, reports = (_metrics(rows, metrics) for rows in (chosen_by, reported))
    found = []
    for model in dict.fromkeys(model for model, _, _ in choices):
        for metric, better in metrics.items():
            means = {setting: fmean(v) for (name, setting, m), v in choices.items() if name == model and m == metric}
            setting = (max if better == "higher" else min)(means, key=means.__getitem__)
            values = reports.get((model, setting, metric))
            if values is None:
                raise ValueError(f"{model!r} is best by {metric} with {setting!r}: not among the reported rows.")
            spread = stdev(values) if len(values) > 1 else 0.0
            found.append(Best(model, metric, setting, fmean(values), spread, len(values)))
    return found


def _metrics(rows: Sequence[Mapping[str, Any]], metrics: Iterable[str]) -> dict[tuple[str, str, str], list[float]]:
    if not rows:
        raise ValueError("there are no rows. Give one for each model, setting and seed.")
    found: dict[tuple[str, str, str], list[float]] = {}
    for number, row in enumerate(rows):
        for key in ("model", "setting", *metrics):
            if key not in row:
                raise ValueError(f"row {number} has no {key!r}.")
        for metric in metrics:
            if not math.isfinite(row[metric]):
                raise ValueError(f"row {number} has {metric} = {row[metric]}. Every value must be finite.")
            found.setdefault((row["model"], row["setting"], metric), []).append(float(row[metric]))
    return found


def _check(points: Sequence[Point]) -> None:
    if not points:
        raise ValueError("there are no points. Give at least one setting of each model.")
    for point in points:
        if not (math.isfinite(point.quality) and math.isfinite(point.diversity)):
            raise ValueError(
                f"{point.model!r} with {point.setting!r} has quality {point.quality} and diversity {point.diversity}. "
                "Both must be finite."
            )
