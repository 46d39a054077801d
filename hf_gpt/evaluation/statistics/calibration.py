"""Calibration of predicted probabilities."""

import numpy as np


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (https://arxiv.org/abs/1706.04599, equation 3) of the probability of label 1.

    The gap between mean probability and share of label 1, averaged over bins of equal width by the examples in them.
    A bin holds its upper end; 0 is in the first.

    Args:
        probabilities: From 0 to 1, float64 `(n,)`.
        labels: 0 or 1, int64 `(n,)`.
        bins: How many.
    """
    positions = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(positions, probabilities - labels, bins)
    return float(np.abs(gaps).sum() / len(labels))
