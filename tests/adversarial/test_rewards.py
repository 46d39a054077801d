import math

import pytest
import torch

from hf_gpt.adversarial.generator import rewards
from hf_gpt.adversarial.generator.losses import policy_gradient_loss


def _kl(p, q):
    return (p * (p / q).log()).sum()


def _jsd(p, q):
    return (_kl(p, (p + q) / 2) + _kl(q, (p + q) / 2)) / 2


DIVERGENCES = {
    "logit": lambda p, q: _kl(q, p),
    "log_sigmoid": lambda p, q: _kl(q, p) - 2 * _jsd(p, q),
    "softplus": lambda p, q: 2 * _jsd(p, q),
    "sigmoid": lambda p, q: _kl(p, (p + q) / 2),
    "centred_sigmoid": lambda p, q: 2 * _kl(p, (p + q) / 2),
    "ratio": lambda p, q: _kl(p, q),
}


@pytest.mark.parametrize("kind", sorted(rewards.REWARDS))
def test_each_reward_descends_its_divergence(world, kind):
    exact = world.gradient(DIVERGENCES[kind](world.p, world.q))
    values = world.expected(rewards.score_rewards(world.scores, kind))
    sampled = world.gradient(policy_gradient_loss(world.logps(), values, world.mask))
    torch.testing.assert_close(sampled, exact, atol=1e-5, rtol=1e-4)


def test_unknown_reward_is_named():
    with pytest.raises(ValueError, match="no reward 'logits'; choose from logit, "):
        rewards.score_rewards(torch.zeros(2), "logits")


def test_pairwise_reward_descends_its_divergence(world):
    """Against one real text with p/q = w: E_p[log p / (p + w q)] / w."""
    w = world.scores[3].exp()
    exact = world.gradient((world.p * (world.p / (world.p + w * world.q)).log()).sum() / w)
    values = rewards.pairwise_rewards(world.scores[3:4], world.scores)
    sampled = world.gradient(policy_gradient_loss(world.logps(), world.expected(values), world.mask))
    torch.testing.assert_close(sampled, exact, atol=1e-5, rtol=1e-4)
    two = rewards.pairwise_rewards(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0, 1.0, 0.0]))
    torch.testing.assert_close(two, torch.sigmoid(torch.tensor([0.0, 2.0, 0.0, -1.0])))


def test_differences_telescope():
    scores = torch.tensor([[0.5, 2.0, -1.0], [1.0, 3.0, 99.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    dense = rewards.logit_difference_rewards(scores, mask, prompt_scores=torch.tensor([0.25, 0.0]))
    assert dense.tolist() == [[0.25, 1.5, -3.0], [1.0, 2.0, 0.0]]
    assert dense.sum(1).tolist() == [-1.25, 3.0]


def test_dense_log_ratio_rewards_give_the_exact_gradient_of_the_reverse_kl(world):
    exact = world.gradient(_kl(world.q, world.p))
    dense = rewards.logit_difference_rewards(world.prefix_scores, world.mask)
    returns = rewards.dense_returns(dense, world.mask, gamma=1.0)
    sampled = world.gradient(policy_gradient_loss(world.logps(), world.expected(returns), world.mask))
    torch.testing.assert_close(sampled, exact, atol=1e-5, rtol=1e-4)


def test_sparse_rewards_stand_at_the_last_token(world):
    sparse = rewards.sparse_rewards(torch.tensor([2.0, 3.0]), torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert sparse.tolist() == [[0, 2, 0], [0, 0, 3]]
    returns = rewards.dense_returns(sparse, torch.tensor([[1, 1, 0], [1, 1, 1]]), gamma=0.5)
    assert returns.tolist() == [[1, 2, 0], [0.75, 1.5, 3]]


def test_returns_by_hand():
    values, mask = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert rewards.dense_returns(values, mask, 0.5).tolist() == [[3, 4, 4], [2, 2, 0]]
    assert rewards.dense_returns(values, mask, 0.0).tolist() == [[1, 2, 4], [1, 2, 0]]
    assert rewards.future_returns(values, mask, 0.5).tolist() == [[2, 2, 0], [1, 0, 0]]


def test_position_baseline_by_hand():
    returns = torch.tensor([[1.0, 5.0, 9.0], [3.0, 7.0, 0.0], [5.0, 0.0, 0.0], [8.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]])
    # At the third position of the first text both others have ended, with returns of 7, 5 and 8.
    expected = [[16 / 3, 7, 20 / 3], [14 / 3, 5, 0], [4, 0, 0], [3, 0, 0]]
    torch.testing.assert_close(rewards.position_baseline(returns, mask, 4), torch.tensor(expected))
    pairs = rewards.position_baseline(returns, mask, 2)
    assert pairs[:, 0].tolist() == [3, 1, 8, 5]
    with pytest.raises(ValueError, match="group_size >= 2"):
        rewards.position_baseline(returns, mask, 1)


def test_position_baseline_knows_nothing_of_the_text_it_is_for():
    generator = torch.Generator().manual_seed(0)
    returns = torch.randn(6, 5, generator=generator)
    mask = (torch.arange(5) < torch.tensor([[5], [2], [3], [1], [4], [5]])).long()
    before = rewards.position_baseline(returns, mask, 3)
    changed = returns.clone()
    changed[0] += 100
    after = rewards.position_baseline(changed, mask, 3)
    torch.testing.assert_close(before[0], after[0], atol=1e-4, rtol=0)
    assert ((after - before)[1:3][mask[1:3].bool()] > 10).all()
    assert torch.equal(before[3:], after[3:])


def test_group_advantages():
    values = torch.tensor([1.0, 3.0, 10.0, 10.0])
    assert rewards.group_advantages(values, 2).tolist() == [-1, 1, 0, 0]
    published = rewards.group_advantages(values, 2, "std", min_std=0, min_relative_std=0)
    torch.testing.assert_close(published, torch.tensor([-1, 1, 0, 0]) / (math.sqrt(2) + 1e-4))
    weighted = rewards.group_advantages(values, 2, "auc", min_std=0, min_relative_std=0, auc=0.75)
    torch.testing.assert_close(weighted, published / 2)
    assert rewards.group_advantages(values, 2, "auc", auc=0.45).abs().max() == 0
    with pytest.raises(ValueError, match="held-out AUC"):
        rewards.group_advantages(values, 2, "auc")
    with pytest.raises(ValueError, match="must be none, std or auc"):
        rewards.group_advantages(values, 2, "variance")


def test_noise_is_not_blown_up_to_a_signal():
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(64, generator=generator)
    assert rewards.group_advantages(noise, 8, "std", 0, 0).abs().max() > 1.5
    assert rewards.group_advantages(noise, 8, "std").abs().max() < 0.5
    # A group without contrast among groups with a lot of it.
    mixed = torch.cat([noise[:8], 10 * torch.randn(56, generator=generator)])
    assert rewards.group_advantages(mixed, 8, "std", min_std=0)[:8].abs().max() < 0.05


def test_signed_power():
    powered = rewards.signed_power(torch.tensor([-4.0, 0.0, 0.25]), 1.5)
    assert powered.tolist() == [-8, 0, 0.125]


def test_grgc_advantages_as_published():
    values = torch.tensor([0.0, 1.0, 2.0, 9.0])
    z = (values - 3) / (values.std() + 1e-4)
    powered = z.sign() * z.abs() ** 1.5
    expected = (powered - powered.mean()) / (powered.std() + 1e-4)
    published = rewards.grgc_advantages(values, 4, min_std=0, min_relative_std=0)
    torch.testing.assert_close(published, expected)
    assert rewards.grgc_advantages(1e-3 * values, 4).abs().max() < 0.1
    torch.testing.assert_close(
        rewards.grgc_advantages(values, 4, auc=0.8), 0.6 * rewards.grgc_advantages(values, 4), rtol=1e-5, atol=1e-6
    )


def test_moving_average():
    assert rewards.moving_average(None, 3.0) == 3.0
    assert rewards.moving_average(1.0, 2.0, decay=0.75) == 1.25
