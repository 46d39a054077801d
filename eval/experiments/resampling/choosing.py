"""Ways to choose among candidates by a critic's logits, each giving as many texts as the others."""

from collections.abc import Sequence

import torch

from hf_gpt.generation.resampling import acceptance_probabilities, best_of, resample


def choices(
    scores: torch.Tensor, number: int, seed: int, ways: Sequence[int], temperatures: Sequence[float] = (1.0, 0.5)
) -> dict[str, torch.Tensor]:
    """Ways to choose `number` rows of a pool by their scores: name to row numbers.

    Args:
        scores: Shape `(pool,)`, logits of candidates drawn independently.
        number: Rows wanted; the pool has at least `number` times the largest of `ways`.
        seed: Of the draws.
        ways: Candidates for each row.
        temperatures: Of importance resampling: below 1 the critic counts more than as a log-ratio.
    """
    draws = torch.Generator().manual_seed(seed)
    chosen = {}
    for candidates in ways:
        groups = scores[: number * candidates].view(number, candidates)
        starts = torch.arange(number) * candidates
        for temperature in temperatures:
            picked = resample(groups, temperature=temperature, generator=draws)[:, 0]
            chosen[f"resample n={candidates} tau={temperature:g}"] = starts + picked
        chosen[f"best of {candidates}"] = starts + best_of(groups)
        # Rejection at a threshold that keeps one in n, and discriminator rejection sampling shifted to keep as many.
        chosen[f"threshold 1/{candidates}"] = scores[: number * candidates].topk(number).indices
        shift = _shift_for(scores, 1 / candidates)
        kept = torch.rand(len(scores), generator=draws) < acceptance_probabilities(scores, scores.max(), shift, 1e-8)
        accepted = kept.nonzero()[:number, 0]
        # Fewer than wanted would make the reverse-LM score incomparable.
        if len(accepted) == number:
            chosen[f"rejection 1/{candidates}"] = accepted
    return chosen


def _shift_for(scores: torch.Tensor, rate: float) -> float:
    """The gamma at which discriminator rejection sampling accepts this share, by bisection."""
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        share = acceptance_probabilities(scores, scores.max(), middle, 1e-8).mean().item()
        # Just above the share that is wanted, so that the pool does not run out.
        low, high = (middle, high) if share > 1.02 * rate else (low, middle)
    return low
