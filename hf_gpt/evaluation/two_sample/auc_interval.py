"""Area under the ROC curve of scores of two samples, with its standard error and its interval."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AucInterval:
    """AUC of held-out scores: the probability that a real text scores above a generated one, ties counting half.

    Attributes:
        auc: 0.5 where the scores tell nothing.
        low, high: Ends of the bootstrap interval (https://doi.org/10.1214/aos/1176344552), percentile form. Where every
            resample has the same AUC, as at 0 and 1, those of Wilson's interval for the smaller sample.
        p_value: One-sided, of the Mann-Whitney test against an AUC of 0.5.
        standard_error: Standard deviation of the resampled values; where that is 0, Hanley and McNeil's at half a text
            of the smaller sample away from the end.
    """

    auc: float
    low: float
    high: float
    p_value: float
    standard_error: float


def auc(real_scores: np.ndarray, generated_scores: np.ndarray) -> float:
    """Mann-Whitney form of the AUC; both arrays `(n,)`. NaN where a score is.

    Raises:
        ValueError: there are no scores of one kind.
    """
    from scipy.stats import rankdata

    _check_not_empty(real_scores, generated_scores)
    scores = np.concatenate([real_scores, generated_scores])
    if np.isnan(scores).any():
        return math.nan
    ranks = rankdata(scores)[: len(real_scores)]
    pairs = len(real_scores) * len(generated_scores)
    return float((ranks.sum() - len(real_scores) * (len(real_scores) + 1) / 2) / pairs)


def true_positive_rate(positive_scores: np.ndarray, negative_scores: np.ndarray, false_positive_rate: float) -> float:
    """Share of positives above the threshold that at most so many of the negatives exceed.

    An AUC averages over thresholds that nobody would use. Detectors of generated text are compared at false positive
    rates of 1 % and 5 % (RAID, https://arxiv.org/abs/2405.07940).

    Args:
        positive_scores, negative_scores: `(n,)` and `(m,)`; higher is positive.
        false_positive_rate: From 0 to below 1.

    Raises:
        ValueError: there are no scores of one kind, or another rate.
    """
    _check_not_empty(positive_scores, negative_scores)
    if not 0 <= false_positive_rate < 1:
        raise ValueError(f"a false positive rate is in 0 to below 1, got {false_positive_rate}.")
    threshold = np.sort(negative_scores)[::-1][int(false_positive_rate * len(negative_scores) + 1e-9)]
    return float((positive_scores > threshold).mean())


def hanley_mcneil_error(auc: float, num_real: int, num_generated: int) -> float:
    """Standard error of an AUC from nothing but the sizes of the samples.

    Hanley and McNeil 1982 (https://doi.org/10.1148/radiology.143.1.7063747), equations 1 and 2: exact at 0.5, close
    elsewhere. It covers the choice of the texts that are judged, not the training of whatever judges them.

    Args:
        auc: Of `num_real * num_generated` pairs; 0 and 1 are taken for half a text away from there, not for certain.
        num_real, num_generated: Texts that were judged, training texts of a classifier not among them.

    Raises:
        ValueError: the AUC is not in 0 to 1, or a sample is empty.
    """
    if not 0 <= auc <= 1:
        raise ValueError(f"an AUC is in 0 to 1, got {auc}.")
    if num_real < 1 or num_generated < 1:
        raise ValueError(f"an AUC needs texts of both kinds, got {num_real} and {num_generated}.")
    margin = 0.5 / min(num_real, num_generated)
    a = min(max(auc, margin), 1 - margin)
    above_both, below_both = a / (2 - a), 2 * a**2 / (1 + a)
    variance = a * (1 - a) + (num_real - 1) * (above_both - a**2) + (num_generated - 1) * (below_both - a**2)
    return math.sqrt(variance / (num_real * num_generated))


def auc_interval(
    real_scores: np.ndarray, generated_scores: np.ndarray, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> AucInterval:
    """AUC with an interval from resampling real and generated scores, each among its own.

    Args:
        real_scores, generated_scores: `(n,)` and `(m,)`, held out from what made the scores. The interval covers the
            choice of these texts, not the training of the classifier.
        resamples: How often, 2 or more.
        level: Share of the resampled values between the ends.
        seed: Of the resampling.

    Raises:
        ValueError: a score is NaN, there are none of one kind, or too few resamples.
    """
    from scipy.stats import mannwhitneyu

    _check_not_empty(real_scores, generated_scores)
    if resamples < 2:
        raise ValueError(f"resamples must be 2 or more, better 1000; got {resamples}.")
    for name, scores in (("real", real_scores), ("generated", generated_scores)):
        count = int(np.isnan(scores).sum())
        if count:
            raise ValueError(f"{count} of {len(scores)} scores of {name} texts are NaN: what scores them is broken.")
    values, positions = np.unique(np.concatenate([real_scores, generated_scores]), return_inverse=True)
    real, generated = positions[: len(real_scores)], positions[len(real_scores) :]
    generator = np.random.default_rng(seed)
    sampled = np.empty(resamples)
    for n in range(resamples):
        # By counts of each distinct score: linear, where ranking again would sort.
        above = np.bincount(real[generator.integers(0, len(real), len(real))], minlength=len(values))
        below = np.bincount(generated[generator.integers(0, len(generated), len(generated))], minlength=len(values))
        sampled[n] = above @ (below.cumsum() - 0.5 * below)
    sampled /= len(real) * len(generated)
    found, error = auc(real_scores, generated_scores), float(sampled.std(ddof=1))
    low, high = map(float, np.quantile(sampled, [(1 - level) / 2, (1 + level) / 2]))
    if high - low < 1e-12:
        low, high = _wilson(found, min(len(real), len(generated)), level)
        error = hanley_mcneil_error(found, len(real), len(generated))
    # A rank test of nothing but ties has no variance to divide by.
    test = {"alternative": "greater", "method": "asymptotic"}
    p_value = 0.5 if len(values) == 1 else mannwhitneyu(real_scores, generated_scores, **test).pvalue
    return AucInterval(found, low, high, float(p_value), error)


def _wilson(share: float, number: int, level: float) -> tuple[float, float]:
    """Wilson's interval of a share of `number` (https://doi.org/10.1080/01621459.1927.10502953)."""
    from scipy.stats import norm

    z = float(norm.ppf((1 + level) / 2))
    centre, half = share + z**2 / (2 * number), z * math.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    low, high = (centre - half) / (1 + z**2 / number), (centre + half) / (1 + z**2 / number)
    return 0.0 if share == 0 else low, 1.0 if share == 1 else high


def _check_not_empty(real_scores: np.ndarray, generated_scores: np.ndarray) -> None:
    for name, scores in (("real", real_scores), ("generated", generated_scores)):
        if not len(scores):
            raise ValueError(f"there are no scores of {name} texts.")
