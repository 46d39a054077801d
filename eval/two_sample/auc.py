"""Area under the ROC curve of scores of two samples, with its bootstrap interval."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AucInterval:
    """AUC of held-out scores: the probability that a real text scores above a generated one, ties counting half.

    Attributes:
        auc: 0.5 where the scores tell nothing.
        low, high: Ends of the bootstrap interval (https://doi.org/10.1214/aos/1176344552), percentile form.
        p_value: One-sided, of the Mann-Whitney test against an AUC of 0.5.
    """

    auc: float
    low: float
    high: float
    p_value: float


def auc(real_scores: np.ndarray, fake_scores: np.ndarray) -> float:
    """Mann-Whitney form of the AUC; both arrays `(n,)`, not empty."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([real_scores, fake_scores]))[: len(real_scores)]
    pairs = len(real_scores) * len(fake_scores)
    return float((ranks.sum() - len(real_scores) * (len(real_scores) + 1) / 2) / pairs)


def auc_interval(
    real_scores: np.ndarray, fake_scores: np.ndarray, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> AucInterval:
    """AUC with an interval from resampling real and generated scores, each among its own.

    Args:
        real_scores, fake_scores: `(n,)` and `(m,)`, held out from whatever made the scores. The interval covers the
            choice of these texts, not the training of the classifier.
        resamples: How often.
        level: Share of the resampled values between the ends.
        seed: Of the resampling.
    """
    from scipy.stats import mannwhitneyu

    values, places = np.unique(np.concatenate([real_scores, fake_scores]), return_inverse=True)
    real, fake = places[: len(real_scores)], places[len(real_scores) :]
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for n in range(resamples):
        # By counts of each distinct score: linear, where ranking again would sort.
        above = np.bincount(real[generator.integers(0, len(real), len(real))], minlength=len(values))
        below = np.bincount(fake[generator.integers(0, len(fake), len(fake))], minlength=len(values))
        drawn[n] = above @ (below.cumsum() - 0.5 * below)
    low, high = np.quantile(drawn / (len(real) * len(fake)), [(1 - level) / 2, (1 + level) / 2])
    p_value = mannwhitneyu(real_scores, fake_scores, alternative="greater", method="asymptotic").pvalue
    return AucInterval(auc(real_scores, fake_scores), float(low), float(high), float(p_value))
