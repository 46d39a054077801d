import math

import pytest
import torch

from hf_gpt.adversarial.monitoring import diagnostics as metrics


def test_auc_counts_pairs():
    real, generated = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 2.0])
    wins = [(r > f) + (r == f) / 2 for r in real.tolist() for f in generated.tolist()]
    assert metrics.auc(real, generated) == pytest.approx(sum(wins) / 6)
    generator = torch.Generator().manual_seed(0)
    real, generated = torch.randn(50, generator=generator), torch.randn(30, generator=generator) - 0.5
    pairs = (real.unsqueeze(1) > generated).double().mean().item()
    assert metrics.auc(real, generated) == pytest.approx(pairs)
    assert metrics.auc(real.bfloat16(), real.bfloat16()) == pytest.approx(0.5)


def test_accuracy():
    assert metrics.accuracy(torch.tensor([1.0, -1.0]), torch.tensor([-1.0] * 6)) == pytest.approx(0.75)


def _texts(lengths, end, width=12):
    mask = (torch.arange(width) < torch.as_tensor(lengths).unsqueeze(1)).long()
    ids = torch.full((len(lengths), width), 5) * mask
    if end:
        ids.scatter_(1, (mask.sum(1) - 1).unsqueeze(1), 1)
    return ids, mask


def test_shortcut_by_length_by_spread_of_length_and_by_format():
    generator = torch.Generator().manual_seed(0)

    def sample(low, high, end=True):
        lengths = torch.randint(low, high, (200,), generator=generator)
        return metrics.format_features(*_texts(lengths, end), special_token_ids=[0, 1])

    same = metrics.shortcut_auc(sample(3, 12), sample(3, 12))
    assert abs(same - 0.5) < 0.1
    assert metrics.shortcut_auc(sample(6, 12), sample(3, 9)) > 0.8
    # Same mean, other spread: only the square tells.
    assert metrics.shortcut_auc(sample(3, 12), sample(7, 8)) > 0.6
    assert metrics.shortcut_auc(sample(3, 12, end=True), sample(3, 12, end=False)) > 0.99


def test_format_features_by_hand():
    ids, mask = torch.tensor([[1, 5, 0, 9], [7, 7, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    features = metrics.format_features(ids, mask, [0, 1])
    assert features.tolist() == [[4, 16, 1, 0, 1, 1], [2, 4, 0, 0, 0, 0]]


def test_contrast_within_groups():
    spread = torch.tensor([-1.0, 1.0, 3.0, 5.0])
    flat = torch.tensor([2.0, 2.01, 2.0, 2.01])
    assert metrics.low_contrast_share(torch.cat([spread, flat]), 4) == 0.5
    assert metrics.low_contrast_share(torch.cat([spread, spread + 1]), 4) == 0
    assert metrics.low_contrast_share(torch.full((8,), 3.0), 4) == 1


def test_entropies():
    logps, mask = torch.tensor([[-1.0, -2.0], [-3.0, -99.0]]), torch.tensor([[1, 1], [1, 0]])
    assert metrics.entropy_per_token(logps, mask) == 2


def test_counts_of_texts():
    texts = [[1, 2, 3, 1, 2], [1, 2], [1, 2], [4]]
    assert metrics.distinct_ngrams(texts, 2) == 3
    assert metrics.duplicate_rate(texts) == 0.25
    assert metrics.copy_rate(texts, [[1, 2], [4, 4]]) == 0.5
    assert metrics.unpadded(torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]])) == [[1, 2]]


def test_rate_deviation():
    assert metrics.rate_deviation(0.5, 100) == pytest.approx(0.05)
    assert metrics.rate_deviation(0.0, 100) == pytest.approx(math.sqrt(0.01 * 0.99 / 100))


def test_lengths_and_logps():
    drift = metrics.length_drift(torch.tensor([9, 11]), torch.tensor([4, 6, 8]))
    assert drift == pytest.approx(4 / 2)
    assert metrics.length_drift(torch.tensor([6]), torch.tensor([5, 5])) == 1
    sampled, again = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -9.0]])
    assert metrics.logp_mismatch(sampled, again, torch.tensor([[1, 0]])) == pytest.approx(0.5)
