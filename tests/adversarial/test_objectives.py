import math
from statistics import NormalDist

import pytest
import torch

from hf_gpt.adversarial.discriminator import losses as objectives
from hf_gpt.adversarial.masked_reductions import masked_mean, masked_sum


# Distributions over four texts as samples that represent them exactly.
REAL = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
FAKE = torch.tensor([0, 1, 2, 2, 3, 3, 3, 3])
P = torch.bincount(REAL).double() / 8
Q = torch.bincount(FAKE).double() / 8


def _jsd(p, q):
    m = (p + q) / 2
    return ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2


def _at_optimum(loss, scores, real=REAL, generated=FAKE):
    """The loss at these scores of the four texts, after checking that it has no slope there."""
    scores = scores.double().requires_grad_()
    value = loss(scores[real], scores[generated])
    (slope,) = torch.autograd.grad(value, scores)
    assert slope.abs().max() < 1e-6
    return value.item()


def test_cross_entropy_measures_the_jensen_shannon_divergence():
    value = _at_optimum(lambda r, f: objectives.bce_loss(r, f, real_label=1.0), (P / Q).log())
    assert value == pytest.approx(math.log(2) - _jsd(P, Q).item(), abs=1e-6)


def test_smoothing_bounds_the_scores():
    share = 0.9 * P / (P + Q)
    _at_optimum(lambda r, f: objectives.bce_loss(r, f, real_label=0.9), (share / (1 - share)).log())
    zero = torch.zeros(3)
    assert objectives.bce_loss(zero, zero).item() == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="real_label is 1"):
        objectives.bce_loss(zero, zero, real_label=1.5)


def test_cross_entropy_of_prefixes_ignores_what_is_masked():
    scores = torch.tensor([[1.0, 2.0], [3.0, float("nan")]], requires_grad=True)
    mask = torch.tensor([[1, 1], [1, 0]])
    loss = objectives.bce_loss(scores, scores, 1.0, mask, mask)
    flat = torch.tensor([1.0, 2.0, 3.0])
    assert loss.item() == pytest.approx(objectives.bce_loss(flat, flat, 1.0).item())
    loss.backward()
    assert scores.grad.isfinite().all()


def test_hinge_measures_total_variation():
    scores = torch.sign(P - Q)
    value = objectives.hinge_loss(scores[REAL], scores[FAKE]).item()
    assert value == pytest.approx(1 - (P - Q).abs().sum().item() / 2)
    # A minimum at a kink: every step away costs.
    for i in range(4):
        for step in (-0.1, 0.1):
            moved = scores.clone()
            moved[i] += step
            assert objectives.hinge_loss(moved[REAL], moved[FAKE]).item() >= value - 1e-9


def test_least_squares_measures_chi_squared_against_the_mixture():
    value = _at_optimum(objectives.least_squares_loss, (P - Q) / (P + Q))
    mixture = (P + Q) / 2
    pearson = ((P - mixture) ** 2 / mixture).sum().item()
    assert value == pytest.approx(1 - pearson, abs=1e-6)


def test_wasserstein_of_points_on_a_line():
    # Texts at 0, 1, 2, 3: the score minus the position is 1-Lipschitz, and optimal as the real ones lie lower.
    scores = -torch.arange(4.0)
    distance = (FAKE.float().sort().values - REAL.float().sort().values).abs().mean().item()
    assert objectives.wasserstein_loss(scores[REAL], scores[FAKE]).item() == pytest.approx(-distance)


def test_bradley_terry_measures_swapped_pairs_whatever_the_zero_point():
    pairs = FAKE.repeat(8)
    for shift in (0.0, 5.0):
        value = _at_optimum(objectives.bradley_terry_loss, (P / Q).log() + shift, generated=pairs)
        ordered, swapped = torch.outer(P, Q), torch.outer(Q, P)
        assert value == pytest.approx(math.log(2) - _jsd(ordered, swapped).item(), abs=1e-6)


def test_bradley_terry_pairs_each_prompt_with_its_own_generations():
    real, generated = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0, -1.0, 1.0])
    expected = sum(math.log1p(math.exp(-d)) for d in (1, -1, 0, -2)) / 4
    assert objectives.bradley_terry_loss(real, generated).item() == pytest.approx(expected)
    # The cross-entropy of a softmax over the pair, as in TextGAIL.
    pairs = torch.stack([real.repeat_interleave(2), generated], 1)
    softmax = torch.nn.functional.cross_entropy(pairs, torch.zeros(4, dtype=torch.long))
    assert objectives.relativistic_loss(real, generated).item() == pytest.approx(softmax.item())
    with pytest.raises(ValueError, match="3 generated texts cannot be paired with 2"):
        objectives.bradley_terry_loss(real, generated[:3])


def test_relativistic_average():
    real, generated = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    sides = [math.log1p(math.exp(-x)) for x in (2, 0)], [math.log1p(math.exp(x)) for x in (-2, 0)]
    loss = objectives.DISCRIMINATOR_LOSSES["relativistic_average"](real, generated)
    assert loss.item() == pytest.approx(sum(sides[0]) / 4 + sum(sides[1]) / 4)


def test_the_mediator_is_the_mixture():
    logits = ((P + Q) / 2).log().requires_grad_()
    logps = logits.log_softmax(0)
    value = objectives.mediator_loss(logps[REAL], logps[FAKE])
    assert torch.autograd.grad(value, logits)[0].abs().max() < 1e-6
    entropies = -((P * P.log()).sum() + (Q * Q.log()).sum()) / 2
    assert value.item() == pytest.approx((_jsd(P, Q) + entropies).item(), abs=1e-6)


def test_the_density_is_that_of_real_text():
    one = torch.ones(len(P), 1)
    logits = P.log().requires_grad_()
    logps = logits.log_softmax(0)
    # Every token a text of its own, as often as its distribution has it.
    real, generated, share = logps[REAL][:, None], logps[FAKE][:, None], P.log()[REAL].mean()
    masks = one.new_ones(real.shape), one.new_ones(generated.shape)
    references = Q.log()[REAL], Q.log()[FAKE]
    value = objectives.density_loss(real, generated, *masks, *references, weight=2.0)
    assert torch.autograd.grad(value, logits)[0].abs().max() < 1e-6
    assert value.item() == pytest.approx((-share + 2 * (math.log(2) - _jsd(P, Q))).item(), abs=1e-6)
    alone = objectives.density_loss(real, generated, *masks)
    assert alone.item() == pytest.approx(-share.item(), abs=1e-6)


def test_the_density_ratio_is_of_whole_texts():
    real, generated = torch.tensor([[-1.0, -2.0, 9.0]]), torch.tensor([[-3.0, 9.0, 9.0]])
    masks = torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 0]])
    value = objectives.density_loss(
        real, generated, *masks, torch.tensor([-4.0]), torch.tensor([-1.0]), weight=0.5, counts=(4.0, 1.0)
    )
    # l of the real text is 1, of the generated one -2; four tokens count over all processes.
    likelihood = 3 / 4
    assert value.item() == pytest.approx(likelihood + 0.5 * (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2)


@pytest.mark.parametrize("name", sorted(objectives.DISCRIMINATOR_LOSSES))
def test_every_loss_pushes_real_up_and_fake_down(name):
    real, generated = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    loss = objectives.DISCRIMINATOR_LOSSES[name](real.bfloat16(), generated.bfloat16())
    assert loss.dtype == torch.float32 and loss.shape == ()
    loss.backward()
    assert (real.grad < 0).all() and (generated.grad > 0).all()


def test_r1_of_a_linear_score():
    embeddings = torch.randn(3, 2, 4, requires_grad=True)
    weight = torch.tensor([1.0, -2.0, 0.5, 0.0], requires_grad=True)
    penalty = objectives.r1_penalty((embeddings @ weight).sum(1), embeddings, gamma=3.0)
    # Each of the 2 positions has the gradient `weight`.
    assert penalty.item() == pytest.approx(3 / 2 * 2 * 5.25)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 3 * 2 * weight.detach())
    with pytest.raises(ValueError, match="requires_grad"):
        objectives.r1_penalty(torch.zeros(3), torch.zeros(3, 2, 4))


def test_gradient_penalty_wants_unit_slope():
    real, generated = torch.randn(3, 1, 4), torch.randn(3, 1, 4)
    mixed = objectives.mix_embeddings(real, generated, torch.Generator().manual_seed(0))
    share = ((mixed - generated) / (real - generated)).detach()
    assert (share.std(2) < 1e-3).all() and ((share > 0) & (share < 1)).all()
    weight = torch.tensor([3.0, 0.0, 4.0, 0.0], requires_grad=True)
    penalty = objectives.gradient_penalty((mixed @ weight).sum(1), mixed)
    assert penalty.item() == pytest.approx((5 - 1) ** 2)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * 4 * weight.detach() / 5)


def test_grgc_wants_the_quantiles_of_a_gaussian():
    quantiles = [NormalDist().inv_cdf((j - 0.5) / 5) for j in range(1, 6)]
    group = torch.tensor(quantiles)[torch.tensor([3, 0, 4, 1, 2])]
    assert objectives.grgc_calibration(torch.cat([group, group + 7]), 5).item() == pytest.approx(0, abs=1e-6)
    # Two equal scores are each 0.6745 away from their quantile.
    assert objectives.grgc_calibration(torch.zeros(2), 2).item() == pytest.approx(NormalDist().inv_cdf(0.75) ** 2)


def test_grgc_spreads_a_collapsed_group_and_keeps_its_mean():
    scores = torch.tensor([0.1, 0.0, 0.3, 0.2], requires_grad=True)
    objectives.grgc_calibration(scores, 4).backward()
    assert scores.grad.sum().item() == pytest.approx(0, abs=1e-6)
    assert scores.grad[1] > scores.grad[0] > 0 > scores.grad[3] > scores.grad[2]
    quantiles = torch.tensor([NormalDist().inv_cdf((j - 0.5) / 4) for j in (2, 1, 4, 3)])
    torch.testing.assert_close(scores.grad, 2 / 4 * (scores.detach() - 0.15 - quantiles))
    with pytest.raises(ValueError, match="4 rows do not split into groups of 3"):
        objectives.grgc_calibration(scores, 3)
    with pytest.raises(ValueError, match="at least 2"):
        objectives.grgc_calibration(scores, 1)


def test_reductions():
    values = torch.tensor([[1.0, float("inf")], [2.0, 3.0]])
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert masked_sum(values, mask).tolist() == [1, 5]
    assert masked_mean(values, mask).item() == 2
    assert masked_mean(values, torch.zeros(2, 2)).item() == 0


@pytest.mark.parametrize("name", ["bce", "hinge", "least_squares", "wasserstein", "mediator"])
def test_parts_that_divide_by_their_share_of_all_tokens_have_the_mean_over_all(name):
    generator = torch.Generator().manual_seed(0)
    loss = objectives.mediator_loss if name == "mediator" else objectives.DISCRIMINATOR_LOSSES[name]
    real, generated = torch.randn(2, 4, 5, generator=generator)
    real_mask, generated_mask = (
        torch.arange(5) < torch.tensor(lengths)[:, None] for lengths in ([5, 4, 1, 1], [1, 1, 1, 5])
    )
    whole = loss(real, generated, real_mask=real_mask, generated_mask=generated_mask)
    halves = [
        loss(
            real[rows],
            generated[rows],
            real_mask=real_mask[rows],
            generated_mask=generated_mask[rows],
            counts=(real_mask.sum() / 2, generated_mask.sum() / 2),
        )
        for rows in (slice(0, 2), slice(2, 4))
    ]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-6)
    means = [
        loss(real[rows], generated[rows], real_mask=real_mask[rows], generated_mask=generated_mask[rows])
        for rows in (slice(0, 2), slice(2, 4))
    ]
    assert (sum(means) / 2).item() != pytest.approx(whole.item(), rel=1e-3)
