import math

import pytest
import torch

from hf_gpt.adversarial.monitoring import diagnostics as figures


def test_auc_counts_pairs():
    real, fake = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 2.0])
    wins = [(r > f) + (r == f) / 2 for r in real.tolist() for f in fake.tolist()]
    assert figures.auc(real, fake) == pytest.approx(sum(wins) / 6)
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(50, generator=generator), torch.randn(30, generator=generator) - 0.5
    pairs = (real.unsqueeze(1) > fake).double().mean().item()
    assert figures.auc(real, fake) == pytest.approx(pairs)
    assert figures.auc(real.bfloat16(), real.bfloat16()) == pytest.approx(0.5)


def test_accuracy():
    assert figures.accuracy(torch.tensor([1.0, -1.0]), torch.tensor([-1.0] * 6)) == pytest.approx(0.75)


def _texts(lengths, end, width=12):
    mask = (torch.arange(width) < torch.as_tensor(lengths).unsqueeze(1)).long()
    ids = torch.full((len(lengths), width), 5) * mask
    if end:
        ids.scatter_(1, (mask.sum(1) - 1).unsqueeze(1), 1)
    return ids, mask


def test_shortcut_by_length_by_spread_of_length_and_by_format():
    generator = torch.Generator().manual_seed(0)

    def draw(low, high, end=True):
        lengths = torch.randint(low, high, (200,), generator=generator)
        return figures.format_features(*_texts(lengths, end), special_token_ids=[0, 1])

    same = figures.shortcut_auc(draw(3, 12), draw(3, 12))
    assert abs(same - 0.5) < 0.1
    assert figures.shortcut_auc(draw(6, 12), draw(3, 9)) > 0.8
    # Same mean, other spread: only the square tells.
    assert figures.shortcut_auc(draw(3, 12), draw(7, 8)) > 0.6
    assert figures.shortcut_auc(draw(3, 12, end=True), draw(3, 12, end=False)) > 0.99


def test_format_features_by_hand():
    ids, mask = torch.tensor([[1, 5, 0, 9], [7, 7, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    features = figures.format_features(ids, mask, [0, 1])
    assert features.tolist() == [[4, 16, 1, 0, 1, 1], [2, 4, 0, 0, 0, 0]]


def test_contrast_within_groups():
    spread = torch.tensor([-1.0, 1.0, 3.0, 5.0])
    flat = torch.tensor([2.0, 2.01, 2.0, 2.01])
    assert figures.low_contrast_share(torch.cat([spread, flat]), 4) == 0.5
    assert figures.low_contrast_share(torch.cat([spread, spread + 1]), 4) == 0
    assert figures.low_contrast_share(torch.full((8,), 3.0), 4) == 1


def test_entropies():
    logps, mask = torch.tensor([[-1.0, -2.0], [-3.0, -99.0]]), torch.tensor([[1, 1], [1, 0]])
    assert figures.entropy_per_token(logps, mask) == 2
    assert figures.entropy_per_text(logps, mask) == 3


def test_counts_of_texts():
    texts = [[1, 2, 3, 1, 2], [1, 2], [1, 2], [4]]
    assert figures.distinct_ngrams(texts, 2) == 3
    assert figures.duplicate_rate(texts) == 0.25
    assert figures.copy_rate(texts, [[1, 2], [4, 4]]) == 0.5
    assert figures.unpadded(torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]])) == [[1, 2]]


def test_rate_deviation():
    assert figures.rate_deviation(0.5, 100) == pytest.approx(0.05)
    assert figures.rate_deviation(0.0, 100) == pytest.approx(math.sqrt(0.01 * 0.99 / 100))


def test_lengths_and_logps():
    drift = figures.length_drift(torch.tensor([9, 11]), torch.tensor([4, 6, 8]))
    assert drift == pytest.approx(4 / 2)
    assert figures.length_drift(torch.tensor([6]), torch.tensor([5, 5])) == 1
    sampled, again = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -9.0]])
    assert figures.logp_mismatch(sampled, again, torch.tensor([[1, 0]])) == pytest.approx(0.5)
