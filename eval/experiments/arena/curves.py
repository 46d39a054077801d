"""A generator's curve over sampling temperatures, and one generator against another at equal entropy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.interpolate import PchipInterpolator


@dataclass(frozen=True)
class Point:
    """One temperature: H(q) and KL(q || p), nats per token, with the standard error of the latter."""

    temperature: float
    entropy: float
    kl: float
    error: float = 0.0


def points_of(arm: Mapping[str, Any], length: int) -> list[Point]:
    """The curve of a stored arm, whose estimates are in nats a text of `length` tokens."""
    return [
        Point(
            point["temperature"],
            point["entropy_q"]["value"] / length,
            point["kl_qp"]["value"] / length,
            point["kl_qp"]["error"] / length,
        )
        for point in arm["curve"]
    ]


def best(points: Sequence[Point]) -> Point:
    """The point of the least KL(q || p): the best sampling temperature."""
    return min(points, key=lambda point: point.kl)


def kl_at(points: Sequence[Point], entropy: float) -> float | None:
    """KL(q || p) of a curve at an entropy between its temperatures; None beyond its ends.

    By the monotone cubic of Fritsch & Carlson, which neither overshoots nor, unlike straight lines, lies above a convex
    curve everywhere.
    """
    return _at({point.entropy: point.kl for point in points}, entropy)


def temperature_at(points: Sequence[Point], entropy: float) -> float | None:
    """The temperature at which a generator has this entropy, in the same way."""
    return _at({point.entropy: point.temperature for point in points}, entropy)


def _at(values: Mapping[float, float], position: float) -> float | None:
    ordered = sorted(values.items())
    if not ordered or not ordered[0][0] <= position <= ordered[-1][0]:
        return None
    if len(ordered) == 1:
        return ordered[0][1]
    return float(PchipInterpolator(*zip(*ordered, strict=True))(position))


def gain(at: Point, baseline: Sequence[Point]) -> tuple[float, float] | None:
    """KL(q || p) of a baseline minus that of a point at the same entropy, nats per token, with its standard error.

    Positive where the point wins; None where the baseline's temperatures do not reach that entropy.
    """
    other = kl_at(baseline, at.entropy)
    if other is None:
        return None
    nearest = min(baseline, key=lambda point: abs(point.entropy - at.entropy))
    return other - at.kl, math.hypot(at.error, nearest.error)
