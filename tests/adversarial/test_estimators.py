import math

import pytest
import torch

from hf_gpt.adversarial.generator import losses as estimators
from hf_gpt.adversarial.generator.divergences import TOKEN_DIVERGENCES, token_divergence
from hf_gpt.adversarial.generator.rewards import (
    dense_returns,
    differential_rewards,
    future_returns,
    logit_difference_rewards,
)


def _kl(p, q):
    return (p * (p / q).log()).sum()


def _in_expectation(world, per_text):
    """A batch mean of `per_text` losses turned into the expectation under the generator."""
    return (world.q.detach() * per_text).sum()


# Policy gradients.


def test_policy_gradient_normalisations():
    logps = torch.tensor([[-1.0, -2.0], [-3.0, float("-inf")]])
    mask, advantages = torch.tensor([[1, 1], [1, 0]]), torch.tensor([1.0, 2.0])
    loss = {
        kind: estimators.policy_gradient_loss(logps, advantages, mask, kind).item()
        for kind in estimators.NORMALIZATIONS
    }
    assert loss == {"sequence": pytest.approx(9 / 2), "token": pytest.approx(9 / 3), "length": pytest.approx(7.5 / 2)}
    with pytest.raises(ValueError, match="normalization is 'mean'"):
        estimators.policy_gradient_loss(logps, advantages, mask, "mean")


def test_no_gradient_reaches_the_advantages_or_a_masked_token():
    logps = torch.tensor([[-1.0, float("-inf")]], requires_grad=True)
    advantages = torch.ones(1, 2, requires_grad=True)
    estimators.policy_gradient_loss(logps, advantages, torch.tensor([[1, 0]])).backward()
    assert logps.grad.tolist() == [[-1, 0]] and advantages.grad is None


def test_discounting_at_zero_equals_the_exact_token_loss(world):
    rewards = logit_difference_rewards(world.prefix_scores, world.mask)
    returns = world.expected(dense_returns(rewards, world.mask, gamma=0.0))
    sampled = world.gradient(estimators.policy_gradient_loss(world.logps(), returns, world.mask))
    weights = world.mask * world.q.detach().unsqueeze(1)
    data = world.logits(world.data_table)
    exact = world.gradient(_weighted_exact(world, weights, reference_logits=data))
    torch.testing.assert_close(sampled, exact, atol=1e-5, rtol=1e-4)


def _weighted_exact(world, weights, **kwargs):
    """The expected `exact_token_loss`, one text at a time, since its mask does not weigh."""

    def of(text: int, value):
        return value[text : text + 1] if isinstance(value, torch.Tensor) else value

    losses = [
        estimators.exact_token_loss(
            world.logits()[i : i + 1], world.mask[i : i + 1], **{k: of(i, v) for k, v in kwargs.items()}
        )
        for i in range(len(weights))
    ]
    return (torch.stack(losses) * weights[:, 0]).sum()


# The exact gradient over the vocabulary.


def test_exact_token_loss_is_the_reverse_kl(world):
    weights = world.mask * world.q.detach().unsqueeze(1)
    loss = _weighted_exact(world, weights, reference_logits=world.logits(world.data_table))
    assert loss.item() == pytest.approx(_kl(world.q, world.p).item(), rel=1e-5)


def test_exact_token_loss_with_future_returns_has_the_whole_gradient(world):
    exact = world.gradient(_kl(world.q, world.p))
    weights = world.mask * world.q.detach().unsqueeze(1)
    now = world.gradient(_weighted_exact(world, weights, reference_logits=world.logits(world.data_table)))
    assert not torch.allclose(now, exact, atol=1e-3)
    rewards = logit_difference_rewards(world.prefix_scores, world.mask)
    future = world.expected(future_returns(rewards, world.mask))
    later = world.gradient(estimators.policy_gradient_loss(world.logps(), future, world.mask))
    torch.testing.assert_close(now + later, exact, atol=1e-5, rtol=1e-4)


def _expected_divergence(world, kind, beta):
    """E_q of the sum over a text's states, with the gradient through the texts' probabilities too."""
    log_g, log_m = (table.log_softmax(-1) for table in (world.logits(), world.logits(world.data_table)))
    values = token_divergence(log_g, log_m, kind, beta) * world.mask
    return (world.q * values.sum(1)).sum()


@pytest.mark.parametrize("kind", TOKEN_DIVERGENCES)
def test_exact_token_loss_and_its_future_returns_are_the_whole_gradient_of_any_divergence(world, kind):
    beta = 0.3
    reference = world.logits(world.data_table)
    weights = world.mask * world.q.detach().unsqueeze(1)
    now = _weighted_exact(world, weights, reference_logits=reference, divergence=kind, beta=beta)
    whole = _expected_divergence(world, kind, beta)
    assert now.item() == pytest.approx(whole.item(), rel=1e-5)
    rewards = estimators.token_divergence_rewards(world.logits(), reference, world.mask, kind, beta)
    future = world.expected(future_returns(rewards, world.mask))
    later = world.gradient(estimators.policy_gradient_loss(world.logps(), future, world.mask))
    torch.testing.assert_close(world.gradient(now) + later, world.gradient(whole), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["jsd", "skew_reverse_kl"])
def test_differential_rewards_make_it_the_gradient_of_the_mean_over_tokens(world, kind):
    """Length is the generator's too: E[sum of D] / E[T] falls otherwise than E[sum of D] with E[T] held."""
    reference = world.logits(world.data_table)
    length = (world.q * world.mask.sum(1)).sum()
    whole = world.gradient(_expected_divergence(world, kind, 0.3) / length)
    weights = world.mask * world.q.detach().unsqueeze(1)
    now = world.gradient(_weighted_exact(world, weights, reference_logits=reference, divergence=kind, beta=0.3))
    given = estimators.token_divergence_rewards(world.logits(), reference, world.mask, kind, 0.3)
    average = world.expected(given.sum(1)).mean() / length.detach()

    def found(rewards):
        future = world.expected(future_returns(rewards, world.mask))
        later = world.gradient(estimators.policy_gradient_loss(world.logps(), future, world.mask))
        return (now + later) / length.detach()

    torch.testing.assert_close(found(differential_rewards(given, world.mask, average)), whole, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found(given), whole, atol=1e-3)


def test_exact_token_loss_from_log_ratios(world):
    data = world.logits(world.data_table)
    ratio = data.log_softmax(-1) - world.logits().log_softmax(-1)
    given = [{"reference_logits": data}, {"log_ratio": ratio.detach()}]
    losses = [estimators.exact_token_loss(world.logits(), world.mask, **kwargs) for kwargs in given]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    torch.testing.assert_close(world.gradient(losses[0]), world.gradient(losses[1]), atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="one of reference_logits and log_ratio"):
        estimators.exact_token_loss(world.logits(), world.mask)


def test_exact_token_loss_with_tokens_that_are_ruled_out():
    logits = torch.tensor([[[0.0, 1.0, float("-inf")]]], requires_grad=True)
    loss = estimators.exact_token_loss(logits, torch.ones(1, 1), reference_logits=torch.tensor([[[0.0, 1.0, -9e9]]]))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert logits.grad.isfinite().all()


# PPO and GRPO.


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # gone up far enough
        (0.5, 2.0, -1.0, -1.0),  # gone the wrong way: not clipped
        (0.5, -2.0, 1.6, 0.0),  # gone down far enough
        (1.5, -2.0, 3.0, 3.0),  # gone the wrong way: not clipped
    ],
)
def test_clipping(ratio, advantage, value, slope):
    logps = torch.tensor([[math.log(ratio), 7.0]], requires_grad=True)
    mask = torch.tensor([[1, 0]])
    loss = estimators.grpo_loss(logps, torch.zeros(1, 2), torch.tensor([advantage]), mask, epsilon=0.2)
    assert loss.item() == pytest.approx(value)
    loss.backward()
    assert logps.grad.tolist() == [[pytest.approx(slope), 0]]


def test_on_policy_grpo_is_the_policy_gradient(world):
    advantages = torch.linspace(-1, 1, len(world.tokens))
    logps = world.logps()
    grpo = world.gradient(estimators.grpo_loss(logps, logps.detach(), advantages, world.mask, normalization="token"))
    plain = world.gradient(estimators.policy_gradient_loss(world.logps(), advantages, world.mask, "token"))
    torch.testing.assert_close(grpo, plain)


def test_k3_estimates_the_kl_to_the_reference(world):
    ratio = world.text_logps(world.data_table) - world.text_logps()
    values = estimators.kl_penalty(
        world.text_logps().unsqueeze(1), world.text_logps(world.data_table).unsqueeze(1), torch.ones(len(ratio), 1)
    ).item()
    assert values == pytest.approx((ratio.exp() - ratio - 1).mean().item(), rel=1e-5)
    assert ((ratio.exp() - ratio - 1) >= 0).all()
    assert _in_expectation(world, ratio.exp() - ratio - 1).item() == pytest.approx(_kl(world.q, world.p).item())


def test_kl_penalty_is_added_and_pulls_back():
    logps = torch.tensor([[-1.0]], requires_grad=True)
    one, ref = torch.ones(1, 1), torch.tensor([[-2.0]])
    loss = estimators.grpo_loss(logps, logps.detach(), torch.zeros(1), one, beta=0.5, ref_logps=ref)
    assert loss.item() == pytest.approx(0.5 * math.exp(-1))
    loss.backward()
    assert logps.grad.item() == pytest.approx(0.5 * (1 - math.exp(-1)))
    with pytest.raises(ValueError, match="needs ref_logps"):
        estimators.grpo_loss(logps, logps, torch.zeros(1), one, beta=0.5)


# Weighted likelihood.


def test_weights_are_a_clipped_softmax():
    scores = torch.tensor([0.0, math.log(3), 50.0, 4.0])
    weights = estimators.self_normalised_weights(scores[:2])
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.75]))
    pairs = estimators.self_normalised_weights(scores, group_size=2)
    torch.testing.assert_close(pairs, torch.tensor([0.25, 0.75, 0.5, 0.5]))
    even = estimators.self_normalised_weights(scores[:2], temperature=1e6)
    torch.testing.assert_close(even, torch.full((2,), 0.5))
    assert estimators.self_normalised_weights(scores, baseline=1.0).sum().item() == pytest.approx(0, abs=1e-6)


def test_importance_weights_make_samples_into_data(world):
    """With every text drawn in proportion to q, weighted likelihood has the gradient of the likelihood of the data."""
    counts = (world.q.detach() * 40_000).round().long()
    rows = torch.arange(len(counts)).repeat_interleave(counts)
    weights = estimators.self_normalised_weights(world.scores[rows], clip=50.0)
    loss = estimators.weighted_likelihood_loss(world.logps()[rows], weights, world.mask[rows])
    torch.testing.assert_close(world.gradient(loss), world.gradient(_kl(world.p, world.q)), atol=2e-3, rtol=1e-2)


def test_selection_keeps_the_best_of_each_group():
    weights = estimators.selected_weights(torch.tensor([0.0, 3.0, 1.0, 5.0, 4.0, 9.0]), group_size=3, keep=2)
    assert weights.tolist() == [0, 0.5, 0.5, 0.5, 0, 0.5]
    loss = estimators.weighted_likelihood_loss(
        torch.full((6, 2), -1.0), weights, torch.tensor([[1, 1], [1, 0]] * 3), num_groups=2
    )
    assert loss.item() == pytest.approx((0.5 * 1 + 0.5 * 2 + 0.5 * 1 + 0.5 * 1) / 2)


def test_soft_targets_have_the_gradient_of_the_likelihood_of_data_drawn_from_them():
    """Of one prefix: as many real tokens as M says teach what M itself teaches, and half of it both."""
    logits = torch.tensor([0.3, -0.2, 1.0, 0.0], requires_grad=True)
    targets = torch.tensor([0.5, 0.25, 0.25, 0.0])
    tokens = torch.tensor([[0], [0], [1], [2]])
    samples = logits.expand(4, 1, 4)
    hard = estimators.soft_target_loss(samples, tokens, targets.log().expand(4, 1, 4), share=0.0)
    soft = estimators.soft_target_loss(samples, tokens, targets.log().expand(4, 1, 4))
    half = estimators.soft_target_loss(samples, tokens, targets.log().expand(4, 1, 4), share=0.5)
    torch.testing.assert_close(half, (hard + soft) / 2)
    gradients = [torch.autograd.grad(loss.mean(), logits, retain_graph=True)[0] for loss in (hard, soft)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(gradients[1], logits.detach().softmax(0) - targets)


def test_soft_targets_may_rule_tokens_out():
    logits = torch.tensor([[[0.0, -torch.inf, 1.0]]])
    loss = estimators.soft_target_loss(logits, torch.tensor([[0]]), torch.tensor([[[0.0, -torch.inf, 0.0]]]))
    torch.testing.assert_close(loss, -logits[..., [0, 2]].log_softmax(-1).mean(-1))


# Straight-through Gumbel.


def test_gumbel_samples_are_one_hot_and_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    samples = estimators.straight_through_gumbel(logits.expand(20_000, 3), 0.7, torch.Generator().manual_seed(0))
    assert set(samples.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(samples.mean(0), logits.softmax(0), atol=0.015, rtol=0)


def test_gumbel_gradient_is_that_of_the_soft_sample():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    direction = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    hard = estimators.straight_through_gumbel(logits, 0.5, torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad((hard * direction).sum(), logits)
    noise = torch.empty(4, 5).exponential_(generator=torch.Generator().manual_seed(3))
    soft = ((logits - noise.log()) / 0.5).softmax(-1)
    torch.testing.assert_close(gradient, torch.autograd.grad((soft * direction).sum(), logits)[0])


def test_pathwise_losses():
    real, generated = torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([0.0, 2.0], requires_grad=True)
    loss = estimators.relativistic_generator_loss(real, generated)
    assert loss.item() == pytest.approx((math.log1p(math.exp(1)) + math.log1p(math.exp(-2))) / 2)
    loss.backward()
    assert real.grad is None and (generated.grad < 0).all()
    assert estimators.non_saturating_loss(torch.zeros(3)).item() == pytest.approx(math.log(2))


# Self-play.


def test_spin_logistic_by_hand():
    real = torch.tensor([-2.0], requires_grad=True)
    loss = estimators.spin_loss(real, torch.tensor([-5.0]), torch.tensor([-3.0]), torch.tensor([-4.0]), beta=0.1)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.2)))
    loss.backward()
    assert real.grad.item() == pytest.approx(-0.1 / (1 + math.exp(0.2)))


@pytest.mark.parametrize("loss", ["logistic", "chi2"])
def test_spin_optimum(loss):
    """Over all pairs of a four-text world the slope vanishes where the docstring says that the optimum is."""
    p, q_t = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    beta = 0.5
    if loss == "logistic":
        log_q = (q_t * (p / q_t) ** (1 / beta)).log()
        log_q = log_q - log_q.logsumexp(0)
    else:
        log_q = q_t.log() + (p - q_t) / (p + q_t) / beta
    log_q = log_q.requires_grad_()
    real, generated = (p * 10).round().long(), (q_t * 10).round().long()
    rows = torch.cartesian_prod(torch.arange(4).repeat_interleave(real), torch.arange(4).repeat_interleave(generated))
    value = estimators.spin_loss(
        log_q[rows[:, 0]], log_q[rows[:, 1]], q_t.log()[rows[:, 0]], q_t.log()[rows[:, 1]], beta, loss
    )
    assert torch.autograd.grad(value, log_q)[0].abs().max() < 1e-6


def test_spin_chi2_stops_where_logistic_goes_on():
    at_bound = torch.tensor([10.0], requires_grad=True), torch.tensor([-10.0], requires_grad=True)
    zero = torch.zeros(1)
    bounded = estimators.spin_loss(*at_bound, zero, zero, beta=0.1, loss="chi2")
    assert bounded.item() == 0 and torch.autograd.grad(bounded, at_bound[0])[0].item() == 0
    free = estimators.spin_loss(*at_bound, zero, zero, beta=0.1)
    assert torch.autograd.grad(free, at_bound[0])[0].item() < -0.01
    with pytest.raises(ValueError, match="logistic or chi2"):
        estimators.spin_loss(*at_bound, zero, zero, loss="hinge")
