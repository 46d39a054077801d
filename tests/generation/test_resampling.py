"""Choosing by logits, against hand-worked numbers and a pair of distributions that are known exactly."""

import math

import pytest
import torch

from hf_gpt.generation.guidance.selection import (
    acceptance_probabilities,
    best_of,
    effective_sample_size,
    importance_weights,
    reject,
    resample,
)


DATA = torch.tensor([0.50, 0.25, 0.15, 0.07, 0.03])
GENERATOR = torch.tensor([0.10, 0.20, 0.30, 0.15, 0.25])
LOG_RATIO = (DATA / GENERATOR).log()


def frequencies(tokens: torch.Tensor) -> torch.Tensor:
    return torch.bincount(tokens.flatten(), minlength=5) / tokens.numel()


def total_variation(first: torch.Tensor, second: torch.Tensor) -> float:
    return 0.5 * (first - second).abs().sum().item()


def test_weights_and_effective_sample_size_by_hand():
    scores = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])
    weights = importance_weights(scores)
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    torch.testing.assert_close(effective_sample_size(weights), torch.tensor([1 / (1 / 16 + 9 / 16), 2.0]))
    torch.testing.assert_close(importance_weights(scores[0] * 2, temperature=2.0), torch.tensor([0.25, 0.75]))
    with pytest.raises(ValueError, match="above 0"):
        importance_weights(scores, temperature=0)


def test_resampled_tokens_approach_the_data():
    """One of n candidates of q: total variation to p falls with n; at n = 256 only sampling noise is left."""
    samples = torch.Generator().manual_seed(1)
    distances = []
    for number in (1, 4, 256):
        candidates = torch.multinomial(GENERATOR, 20000 * number, True, generator=samples).view(20000, number)
        chosen = resample(LOG_RATIO[candidates], generator=samples)
        distances.append(total_variation(frequencies(candidates.gather(1, chosen)), DATA))
    before = total_variation(GENERATOR, DATA)
    assert distances[0] == pytest.approx(before, abs=0.02)
    assert distances[1] < 0.6 * before
    # Resampling's bias is of order 1/n; the noise of 20000 draws is about 0.005.
    assert distances[2] < 0.02


def test_rejection_is_exact():
    samples = torch.Generator().manual_seed(2)
    tokens = torch.multinomial(GENERATOR, 60000, True, generator=samples)
    kept = reject(LOG_RATIO[tokens], max_score=LOG_RATIO.max(), generator=samples)
    # One in max(p / q) = 5 is accepted.
    assert kept.float().mean().item() == pytest.approx(1 / 5, abs=0.01)
    observed = torch.bincount(tokens[kept], minlength=5)
    expected = DATA * observed.sum()
    chi_square = ((observed - expected).square() / expected).sum().item()
    assert chi_square < 13.28  # 99 % point with 4 degrees of freedom


def test_acceptance_by_hand():
    scores = torch.tensor([0.0, -1.0, 2.0])
    probabilities = acceptance_probabilities(scores, max_score=1.0)
    torch.testing.assert_close(probabilities, torch.tensor([math.exp(-1), math.exp(-2), 1.0]))
    # The paper's form, sigmoid(F) with F = l - m - log(1 - exp(l - m - epsilon)) - gamma, in plain arithmetic.
    shifted = acceptance_probabilities(scores, max_score=1.0, gamma=0.7, epsilon=1e-3)
    for value, score in zip(shifted.tolist(), scores.tolist(), strict=True):
        excess = min(score - 1.0, 0.0)
        logit = excess - math.log(1 - math.exp(excess - 1e-3)) - 0.7
        assert value == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-4)


def test_threshold_keeps_what_is_above_it():
    scores = torch.tensor([-2.0, 0.1, 3.0])
    assert reject(scores, threshold=0.5).tolist() == [False, True, True]
    assert reject(scores, threshold=0.9).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="probability"):
        reject(scores, threshold=1.5)


def test_draws_repeat_with_their_generator():
    scores = torch.randn(6, 8)
    first = [resample(scores, 3, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*first)
    assert first[0].shape == (6, 3)
    without = resample(scores, 8, replacement=False)
    assert (without.sort(-1).values == torch.arange(8)).all()
    assert best_of(scores).tolist() == scores.argmax(1).tolist()
