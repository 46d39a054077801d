"""Divergences of next-token distributions against their definitions, limits and autograd."""

import math

import pytest
import torch

from hf_gpt.adversarial.generator.divergences import TOKEN_DIVERGENCES, token_divergence


G, M = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.3, 0.6])


def _kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))


def _by_definition(kind, beta):
    w = beta * M + (1 - beta) * G
    return {
        "reverse_kl": _kl(G, M),
        "forward_kl": _kl(M, G),
        "jsd": beta * _kl(M, w) + (1 - beta) * _kl(G, w),
        "skew_reverse_kl": _kl(G, (1 - beta) * M + beta * G),
        "skew_forward_kl": _kl(M, w),
    }[kind]


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("kind", TOKEN_DIVERGENCES)
def test_the_definition(kind, beta):
    assert token_divergence(G.log(), M.log(), kind, beta).item() == pytest.approx(_by_definition(kind, beta), rel=1e-5)


@pytest.mark.parametrize("kind", TOKEN_DIVERGENCES)
def test_zero_and_flat_at_equality_alone(kind):
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    given = logits.clone().requires_grad_()
    same = token_divergence(given.log_softmax(-1), logits.log_softmax(-1), kind, 0.3)
    assert same.abs().max() < 1e-6
    assert torch.autograd.grad(same.sum(), given)[0].abs().max() < 1e-6
    assert (token_divergence(given.log_softmax(-1), (2 * logits).log_softmax(-1), kind, 0.3) > 1e-3).all()


@pytest.mark.parametrize("kind", TOKEN_DIVERGENCES)
def test_the_gradient(kind):
    given = torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    log_m = torch.randn(2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).log_softmax(-1)
    function = TOKEN_DIVERGENCES[kind]
    assert torch.autograd.gradcheck(lambda logits: function(logits.log_softmax(-1), log_m, 0.3), given)


def test_limits_of_jensen_and_shannon():
    near = 1e-3
    forward = token_divergence(G.log(), M.log(), "jsd", near).item() / near
    reverse = token_divergence(G.log(), M.log(), "jsd", 1 - near).item() / near
    assert forward == pytest.approx(_kl(M, G), rel=5e-3)
    assert reverse == pytest.approx(_kl(G, M), rel=5e-3)
    swapped = token_divergence(M.log(), G.log(), "jsd", 0.5)
    torch.testing.assert_close(swapped, token_divergence(G.log(), M.log(), "jsd", 0.5))


@pytest.mark.parametrize("kind", ["jsd", "skew_reverse_kl", "skew_forward_kl"])
def test_mixtures_stay_finite_where_one_side_rules_a_token_out(kind):
    logits = torch.tensor([0.0, 1.0, float("-inf"), 0.5], requires_grad=True)
    log_m = torch.tensor([0.5, 0.2, 0.0, float("-inf")]).log_softmax(-1)
    value = token_divergence(logits.log_softmax(-1), log_m, kind, 0.4)
    value.backward()
    assert 0 < value.item() <= -math.log(0.4)
    assert logits.grad.isfinite().all()


def test_what_is_not_there():
    with pytest.raises(ValueError, match="no token divergence 'kl'; choose from reverse_kl"):
        token_divergence(G.log(), M.log(), "kl")
    with pytest.raises(ValueError, match="between 0 and 1, both excluded; got 1"):
        token_divergence(G.log(), M.log(), "jsd", 1.0)
