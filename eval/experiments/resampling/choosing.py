"""Ways to choose among candidates by a discriminator's logits, each giving as many texts as the others."""

from collections.abc import Callable
from functools import partial

import torch

from hf_gpt.generation.guidance.selection import acceptance_probabilities, best_of, resample


def choose(way: str, scores: torch.Tensor, number: int, candidates: int, seed: int) -> torch.Tensor:
    """Row numbers `(number,)` of the texts chosen from a pool, one in `candidates`.

    Args:
        way: One of `WAYS`.
        scores: Shape `(pool,)`, logits of candidates sampled independently.
        number: Rows wanted.
        candidates: For each of them.
        seed: Of the samples.

    Raises:
        ValueError: the pool is too small.
    """
    if len(scores) < number * candidates:
        raise ValueError(f"{number} of {candidates} candidates each need {number * candidates}, got {len(scores)}.")
    scores = scores[: number * candidates]
    return WAYS[way](scores, number, torch.Generator().manual_seed(seed))


def _one_of_each(
    scores, number, samples, pick: Callable[[torch.Tensor, torch.Generator], torch.Tensor]
) -> torch.Tensor:
    groups = scores.view(number, -1)
    return torch.arange(number) * groups.shape[1] + pick(groups, samples)


def _resample(scores, number, samples, temperature: float = 1.0) -> torch.Tensor:
    return _one_of_each(scores, number, samples, lambda groups, g: resample(groups, 1, temperature, generator=g)[:, 0])


def _best(scores, number, samples) -> torch.Tensor:
    return _one_of_each(scores, number, samples, lambda groups, _: best_of(groups))


def _threshold(scores, number, samples) -> torch.Tensor:
    """All above the threshold that as many reach."""
    return scores.topk(number).indices


def _rejection(scores, number, samples) -> torch.Tensor:
    """Discriminator rejection sampling, its gamma such that as many are accepted."""
    low, high = -50.0, 50.0
    for _ in range(60):
        gamma = (low + high) / 2
        accepted = acceptance_probabilities(scores, scores.max(), gamma, 1e-8)
        low, high = (gamma, high) if accepted.sum() > number else (low, gamma)
    uniform = torch.rand(len(scores), generator=samples)
    # As many as are wanted, in place of a number that the samples decide: those whose sample is the farthest below.
    return (uniform / accepted).topk(number, largest=False).indices


WAYS: dict[str, Callable[..., torch.Tensor]] = {
    "resample": _resample,
    "resample tau=0.5": partial(_resample, temperature=0.5),
    "best": _best,
    "threshold": _threshold,
    "rejection": _rejection,
}
