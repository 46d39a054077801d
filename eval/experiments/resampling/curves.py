"""How far a point lies below the curve of a sampler, and whether that passes."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


PASS_LINE = 0.1
SCORES = ("lm_score", "reverse_lm_score", "distinct_share")

# Points by "seed/name".
Points = Mapping[str, Mapping[str, Any]]


def envelope(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (reverse-LM, LM) that no other beats in both, by rising reverse-LM score."""
    kept: list[tuple[float, float]] = []
    for reverse, quality in sorted(points):
        if not kept or quality < kept[-1][1]:
            kept.append((reverse, quality))
    return kept


def gain_at(point: tuple[float, float], curve: Sequence[tuple[float, float]]) -> float | None:
    """How far below a curve the LM score of a point lies, in nats, at its reverse-LM score.

    None beyond the curve's worst diversity. At a better diversity than any of the curve's it is held against the
    curve's most diverse point, which flatters the curve.
    """
    reverse, quality = point
    curve = sorted(curve)
    if reverse > curve[-1][0]:
        return None
    return float(np.interp(reverse, *zip(*curve, strict=True))) - quality


def summarise(points: Points, seeds: Sequence[int], curves: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """For each name its mean scores over the seeds, and its gain over each curve in each seed (`gain_NAME`).

    Args:
        points: Those with an `lm_score` count.
        seeds: A seed without the point, or a place beyond the curve, has the gain None.
        curves: Name of a curve to how the names of its points begin.
    """
    rows = []
    for name in names_of(points):
        found = [points[f"{seed}/{name}"] for seed in seeds if f"{seed}/{name}" in points]
        if not found:
            continue
        row = {key: statistics.fmean(point[key] for point in found) for key in SCORES} | {"name": name}
        row["seeds"] = [seed for seed in seeds if f"{seed}/{name}" in points]
        for curve, prefixes in curves.items():
            row[f"gain_{curve}"] = [_gain(points, seed, name, tuple(prefixes)) for seed in seeds]
        rows.append(row)
    return rows


def seeds_of(points: Points) -> list[int]:
    """The seeds that have points, ascending."""
    return sorted({int(key.split("/", 1)[0]) for key, point in points.items() if "lm_score" in point})


def names_of(points: Points) -> list[str]:
    """Names of the points on the plane, in the order in which they were measured."""
    return list(dict.fromkeys(key.split("/", 1)[1] for key, point in points.items() if "lm_score" in point))


def position(point: Mapping[str, Any]) -> tuple[float, float]:
    """Reverse-LM and LM score."""
    return point["reverse_lm_score"], point["lm_score"]


def passes(gains: Sequence[float | None]) -> bool:
    """Whether the gain reaches the pass line in every seed."""
    return all(gain is not None and gain >= PASS_LINE for gain in gains)


def _gain(points: Points, seed: int, name: str, prefixes: tuple[str, ...]) -> float | None:
    own = points.get(f"{seed}/{name}")
    line = [position(point) for other, point in _of_seed(points, seed) if other.startswith(prefixes)]
    return None if own is None or not line else gain_at(position(own), envelope(line))


def _of_seed(points: Points, seed: int) -> list[tuple[str, Mapping[str, Any]]]:
    parts = [(*key.split("/", 1), point) for key, point in points.items() if "lm_score" in point]
    return [(name, point) for owner, name, point in parts if owner == str(seed)]
