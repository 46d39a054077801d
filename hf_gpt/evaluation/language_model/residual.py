"""Likelihood of a residual energy-based model: a language model q whose texts are weighted by a discriminator.

p(x) = q(x) e^l(x) / Z with the discriminator's logit l and Z = E_q[e^l], one Z for each prompt. What it gains over q on
real texts is E_real[l - log Z] nats. Source: Deng et al. 2020, https://arxiv.org/abs/2004.11714.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from scipy.stats import norm


@dataclass(frozen=True)
class ResidualGain:
    """Nats a text that real texts gain under the residual model.

    Attributes:
        gain: Middle of the two bounds.
        lower, upper: Bounds of the expected gain; they meet as the number of generated texts grows.
        low, high: The 95 % interval: from the lower bound less, to the upper bound more, what chance allows.
    """

    gain: float
    lower: float
    upper: float
    low: float
    high: float


def log_partition_bounds(scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates of log Z whose expectations lie below and above it (Deng et al. 2020, theorem 2).

    With T_n = log((e^l_1 + ... + e^l_n) / n), E[T_n] is at most log Z, and E[(2n - 1) T_n - 2 (n - 1) T_(n-1)] is at
    least log Z for n that are large enough. T_(n-1) is the mean over the n ways of leaving one text out.

    Args:
        scores: (P, N) logits of N generated texts for each of P prompts.

    Returns:
        (P,) lower and (P,) upper estimates.

    Raises:
        ValueError: fewer than two texts for a prompt, another shape, or logits that are not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"log Z needs finite logits of at least two generated texts for each prompt, got shape {scores.shape}."
        )
    number = scores.shape[1]
    total = logsumexp(scores, axis=1)
    # The largest share of one text is capped, since e^l of all others may be too small to be told from 0.
    share = np.minimum(np.exp(scores - total[:, None]), 1 - 1e-12)
    all_texts = total - np.log(number)
    one_left_out = (total[:, None] + np.log1p(-share)).mean(axis=1) - np.log(number - 1)
    return all_texts, (2 * number - 1) * all_texts - 2 * (number - 1) * one_left_out


def residual_gain(real_scores: ArrayLike, generated_scores: ArrayLike, confidence: float = 0.95) -> ResidualGain:
    """What real texts gain in log-likelihood when generated texts are weighted by a discriminator.

    Args:
        real_scores: (M,) logits of real texts that the discriminator has not seen.
        generated_scores: (M, N) logits of N texts that q wrote for the prompt of each real text. Or (1, N): one prompt,
            or the begin token, for all.
        confidence: Of the interval, by the normal approximation over real texts.

    Raises:
        ValueError: shapes that do not belong together, fewer than two real texts, or logits that are not finite.
    """
    real = np.asarray(real_scores, dtype=np.float64)
    generated = np.asarray(generated_scores, dtype=np.float64)
    if real.ndim != 1 or len(real) < 2 or not np.isfinite(real).all():
        raise ValueError(f"a gain needs finite logits of at least two real texts, got shape {real.shape}.")
    below, above = log_partition_bounds(generated)
    if len(generated) not in (1, len(real)):
        raise ValueError(f"there are {len(real)} real texts and generated texts for {len(generated)} prompts.")
    errors = [np.std(real - bound, ddof=1) / np.sqrt(len(real)) for bound in (above, below)]
    if len(generated) == 1:
        weights = np.exp(generated[0] - generated[0].max())
        partition_error = np.std(weights, ddof=1) / weights.mean() / np.sqrt(len(weights))
        errors = [np.hypot(error, partition_error) for error in errors]
    lower, upper = float((real - above).mean()), float((real - below).mean())
    quantile = norm.ppf((1 + confidence) / 2)
    low, high = lower - quantile * errors[0], upper + quantile * errors[1]
    return ResidualGain((lower + upper) / 2, lower, upper, float(low), float(high))
