"""MAUVE over features of any model, by the `mauve-text` package."""

from typing import Any

import numpy as np

from hf_gpt.installation import install_hint


def mauve_score(first: np.ndarray, second: np.ndarray, seed: int = 25, **options: Any) -> dict[str, float | int]:
    """MAUVE (https://arxiv.org/abs/2102.01454) of two samples of features; 1 is the same distribution.

    Args:
        first, second: `(n, dimensions)` and `(m, dimensions)`.
        seed: Of the clustering, on which the value depends: give the spread over several.
        options: Of `mauve.compute_mauve`, such as `num_buckets` and `mauve_scaling_factor`.

    Returns:
        `mauve`, `mauve_star` (smoothed, https://jmlr.org/papers/v24/23-0023.html), `frontier_integral`, `num_buckets`.

    Raises:
        ImportError: the package is missing.
        ValueError: the dimensions differ.
    """
    try:
        from mauve import compute_mauve
    except ImportError:
        raise ImportError(f"MAUVE needs more packages: {install_hint('mauve')}") from None
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"the samples have {first.shape[1]} and {second.shape[1]} dimensions. Take both from the same model."
        )
    found = compute_mauve(p_features=first, q_features=second, seed=seed, verbose=False, **options)
    return {
        "mauve": float(found.mauve),
        "mauve_star": float(found.mauve_star),
        "frontier_integral": float(found.frontier_integral),
        "num_buckets": int(found.num_buckets),
    }
