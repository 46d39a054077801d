"""Ways to choose among candidates by a discriminator's logits, each giving as many texts as the others."""

from collections.abc import Callable

import torch

from hf_gpt.generation.guidance.selection import best_of, resample


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
    groups = scores[: number * candidates].view(number, candidates)
    chosen = WAYS[way](groups, torch.Generator().manual_seed(seed))
    return torch.arange(number) * candidates + chosen


def _resample(groups: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return resample(groups, 1, generator=generator)[:, 0]


# From scores (number, candidates) to the candidate of each row.
WAYS: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "resample": _resample,
    "best": lambda groups, _: best_of(groups),
}
