"""Distances between two samples of feature vectors, and what they come to between two real samples of the same size."""

from collections.abc import Callable

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Frechet distance of normal distributions fitted to two samples (https://arxiv.org/abs/1706.08500, equation 6).

    `|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))`, with the unbiased covariances. Its estimate is too large by an amount
    that shrinks with the samples: compare equal numbers only, several times the dimensions.

    Args:
        first, second: float64 `(n, dimensions)` and `(m, dimensions)`, at least 2 rows each.

    Raises:
        ValueError: the dimensions differ.
    """
    _check_dimensions(first, second)
    offset = first.mean(0) - second.mean(0)
    # Tr (C1 C2)^(1/2) is the sum of the singular values of C1^(1/2) C2^(1/2), which centred samples are roots of.
    roots = [_triangular_root(sample) for sample in (first, second)]
    product = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    traces = sum((root**2).sum() for root in roots)
    return float(max(offset @ offset + traces - 2 * product, 0.0))


def _triangular_root(sample: np.ndarray) -> np.ndarray:
    """R with R^T R = covariance, of at most `dimensions` rows."""
    return np.linalg.qr((sample - sample.mean(0)) / np.sqrt(len(sample) - 1), mode="r")


def median_distance(sample: np.ndarray, most: int = 1000, seed: int = 0) -> float:
    """Median Euclidean distance between rows, of at most `most` of them: the usual bandwidth of a Gaussian kernel."""
    from scipy.spatial.distance import pdist

    if len(sample) > most:
        sample = sample[np.random.default_rng(seed).choice(len(sample), most, replace=False)]
    return float(np.median(pdist(sample)))


def mmd(first: np.ndarray, second: np.ndarray, bandwidth: float) -> float:
    """Unbiased estimate of the squared MMD (https://jmlr.org/papers/v13/gretton12a.html, equation 3).

    Kernel `exp(-|x - y|^2 / (2 bandwidth^2))`. Around 0, and below it half of the time, where both samples come from
    one distribution.

    Args:
        first, second: float64 `(n, dimensions)` and `(m, dimensions)`, at least 2 rows each.
        bandwidth: Above 0, and the same for all samples that are compared.

    Raises:
        ValueError: the dimensions differ or the bandwidth is not above 0.
    """
    _check_dimensions(first, second)
    if not bandwidth > 0:
        raise ValueError(
            f"bandwidth must be above 0, got {bandwidth}. All rows being equal, there is no scale to choose."
        )
    n, m = len(first), len(second)
    within_first = (_kernel_sum(first, first, bandwidth) - n) / (n * (n - 1))
    within_second = (_kernel_sum(second, second, bandwidth) - m) / (m * (m - 1))
    return float(within_first + within_second - 2 * _kernel_sum(first, second, bandwidth) / (n * m))


def _kernel_sum(first: np.ndarray, second: np.ndarray, bandwidth: float, rows: int = 1024) -> float:
    from scipy.spatial.distance import cdist

    parts = (first[start : start + rows] for start in range(0, len(first), rows))
    return float(sum(np.exp(cdist(part, second, "sqeuclidean") / (-2 * bandwidth**2)).sum() for part in parts))


def real_floor(
    distance: Callable[[np.ndarray, np.ndarray], float], real: np.ndarray, size: int, repeats: int = 5, seed: int = 0
) -> tuple[float, float] | None:
    """What a distance comes to between two disjoint real samples: the least that a generator can be asked for.

    Args:
        distance: Of two samples.
        real: Features of real texts.
        size: Rows of each half; the same as in the comparison that the floor is for.
        repeats: Random choices of both halves.
        seed: Of these.

    Returns:
        Mean and standard deviation over the choices, or None where `real` has fewer than `2 * size` rows.
    """
    if len(real) < 2 * size:
        return None
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(repeats):
        order = generator.permutation(len(real))
        found.append(distance(real[order[:size]], real[order[size : 2 * size]]))
    return float(np.mean(found)), float(np.std(found, ddof=1)) if repeats > 1 else 0.0


def compare_at_equal_size(
    distance: Callable[[np.ndarray, np.ndarray], float],
    generated: np.ndarray,
    real: np.ndarray,
    size: int | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> dict[str, float | int | None]:
    """A distance of generated from real features, and the floor of real from real at the same number of rows.

    Args:
        distance: Of two samples.
        generated, real: `(n, dimensions)` and `(m, dimensions)`.
        size: Rows taken from each; left out, as many as leave a floor: `min(n, m // 2)`.
        repeats, seed: Of the random choices.

    Returns:
        `distance` (mean over the choices) and `spread` (their standard deviation), `floor` and `floor_spread` (None
        without enough real texts), `size`.

    Raises:
        ValueError: there are fewer than `size` rows, or `size` is below 2.
    """
    size = min(len(generated), len(real) // 2) if size is None else size
    if size < 2:
        raise ValueError(
            f"references holds {len(real)} entries and predictions {len(generated)}; the distance at equal size needs "
            "at least 4 and 2, better thousands."
        )
    if size > min(len(generated), len(real)):
        raise ValueError(f"size is {size}, but there are {len(generated)} predictions and {len(real)} references.")
    generator = np.random.default_rng(seed)
    found = [
        distance(
            generated[generator.choice(len(generated), size, replace=False)],
            real[generator.choice(len(real), size, replace=False)],
        )
        for _ in range(repeats)
    ]
    floor = real_floor(distance, real, size, repeats, seed)
    return {
        "distance": float(np.mean(found)),
        "spread": float(np.std(found, ddof=1)) if repeats > 1 else 0.0,
        "floor": floor and floor[0],
        "floor_spread": floor and floor[1],
        "size": size,
    }


def _check_dimensions(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"the samples have {first.shape[1]} and {second.shape[1]} dimensions. Take both from the same model."
        )
