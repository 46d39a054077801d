"""Choosing among samples by a discriminator's logits l: importance resampling, rejection, best of n.

If l is the log-ratio log p(x) - log q(x) of data to generator, up to a constant, the first two turn samples of q into
samples of p. Resampling does so as the number of candidates grows, rejection exactly if its bound holds.
"""

import torch


def importance_weights(scores: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Self-normalised importance weights softmax(l / temperature) over the last dimension.

    Args:
        scores: Shape `(..., n)`, logits of n candidates.
        temperature: Above 1 the choice depends less on the discriminator, below 1 more.

    Returns:
        Shape `(..., n)`, float32, summing to 1. Equal weights if minus infinity rules all candidates out.

    Raises:
        ValueError: the temperature is not above 0, or a score is nan or plus infinity.
    """
    if temperature <= 0:
        raise ValueError(f"the temperature of importance weights must be above 0, got {temperature}.")
    _check(scores)
    ruled_out = (scores == -torch.inf).all(-1, keepdim=True)
    return (scores.float() / temperature).masked_fill(ruled_out, 0.0).softmax(-1)


def effective_sample_size(weights: torch.Tensor) -> torch.Tensor:
    """1 / sum(w^2) of normalised weights over the last dimension (Kong 1992), from 1 to n."""
    return 1 / weights.square().sum(-1)


def resample(
    scores: torch.Tensor,
    num_samples: int = 1,
    temperature: float = 1.0,
    replacement: bool = True,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Sampling importance resampling (Rubin 1987): candidates with probability softmax(l / temperature).

    Args:
        scores: Shape `(..., n)`, logits of n candidates.
        num_samples: Samples from each n candidates.
        temperature: See `importance_weights`.
        replacement: Whether a candidate can be sampled twice.
        generator: None: the global one of the device.

    Returns:
        Shape `(..., num_samples)`, int64 indices of candidates.
    """
    weights = importance_weights(scores, temperature)
    samples = torch.multinomial(weights.reshape(-1, weights.shape[-1]), num_samples, replacement, generator=generator)
    return samples.reshape(*scores.shape[:-1], num_samples)


def resample_systematically(
    scores: torch.Tensor,
    num_samples: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Systematic resampling (Kitagawa 1996): candidates in proportion to softmax(l / temperature).

    Their numbers are n times the weights, rounded up or down by one random number. They vary less than with `resample`,
    and each of n candidates of equal weights is kept once.

    Args:
        scores: Shape `(..., n)`, logits of n candidates.
        num_samples: Samples from each n candidates.
        temperature: See `importance_weights`.
        generator: None: the global one of the device.

    Returns:
        Shape `(..., num_samples)`, int64 indices of candidates, ascending.
    """
    # Float32 would round the shares of equal weights.
    heights = importance_weights(scores, temperature).double().cumsum(-1)
    shift = torch.rand((*scores.shape[:-1], 1), dtype=torch.float64, generator=generator, device=scores.device)
    positions = (torch.arange(num_samples, device=scores.device) + shift) / num_samples
    return torch.searchsorted(heights / heights[..., -1:], positions, right=True).clamp(max=scores.shape[-1] - 1)


def acceptance_probabilities(
    scores: torch.Tensor, max_score: torch.Tensor | float, gamma: float = 0.0, epsilon: float = 0.0
) -> torch.Tensor:
    """Probability of accepting each sample, by discriminator rejection sampling (https://arxiv.org/abs/1810.06758).

    With `gamma` and `epsilon` 0 it is exp(l - max_score), so accepted samples follow p exactly if no logit exceeds
    `max_score` and l is the log-ratio. A positive `gamma` accepts less, a negative one more and further from p.

    Args:
        scores: Any shape, logits.
        max_score: The largest possible logit, or the largest seen; larger ones are always accepted.
        gamma: Shift of the logit of acceptance.
        epsilon: Keeps the best sample's acceptance below 1 under a positive `gamma`; 1e-8 in the paper.

    Returns:
        Shape of `scores`, float32.
    """
    _check(scores)
    excess = (scores.float() - max_score).clamp(max=0)
    if gamma == 0 and epsilon == 0:
        return excess.exp()
    # log(1 - exp(x)) as log(-expm1(x)), which keeps its digits near x = 0.
    return (excess - torch.log(-torch.expm1(excess - epsilon)) - gamma).sigmoid()


def reject(
    scores: torch.Tensor,
    threshold: float | None = None,
    max_score: torch.Tensor | float | None = None,
    gamma: float = 0.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Which samples to keep: those above a threshold, or each with its acceptance probability.

    Args:
        scores: Any shape, logits.
        threshold: Keep where sigmoid(l) is above this, without random numbers.
        max_score: Without a threshold, the bound of `acceptance_probabilities`. None: the largest score.
        gamma: See `acceptance_probabilities`.
        generator: None: the global one of the device.

    Returns:
        Shape of `scores`, bool.

    Raises:
        ValueError: the threshold is not a probability.
    """
    if threshold is not None:
        if not 0 <= threshold < 1:
            raise ValueError(f"the threshold of rejection is a probability from 0 to below 1, got {threshold}.")
        _check(scores)
        return scores.float().sigmoid() > threshold
    bound = scores.max() if max_score is None else max_score
    epsilon = 1e-8 if gamma else 0.0
    uniform = torch.rand(scores.shape, generator=generator, device=scores.device)
    return uniform < acceptance_probabilities(scores, bound, gamma, epsilon)


def best_of(scores: torch.Tensor) -> torch.Tensor:
    """Index of the candidate with the largest logit, shape `(...)` for scores `(..., n)`.

    Raises:
        ValueError: a score is nan or plus infinity.
    """
    _check(scores)
    return scores.argmax(-1)


def _check(scores: torch.Tensor) -> None:
    if bool((scores.isnan() | scores.isposinf()).any()):
        raise ValueError(
            "scores to choose by must be numbers or minus infinity, which rules a candidate out; some are nan or plus "
            "infinity. Look for damaged weights or an overflow in the discriminator that gave them."
        )
