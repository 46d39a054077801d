"""RMSNorm and squared ReLU on a CPU in training: their own gradients against those of the formula."""

import pytest
import torch

from hf_gpt.models.layers_hf_gpt import HfGptRMSNorm, HfGptSquaredReLU, _RMSNormFunction, _SquaredReLUFunction


def formula(x, weight, eps):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (2, 3, 4, 8)])
def test_rms_norm_and_its_gradients_are_those_of_the_formula(shape):
    torch.manual_seed(0)
    norm = HfGptRMSNorm(8)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(shape, requires_grad=True)
    found = norm(x)
    assert "RMSNormFunction" in type(found.grad_fn).__name__
    expected = formula(x, norm.weight, norm.variance_epsilon)
    torch.testing.assert_close(found, expected)
    # As attention hands it back: in another order in memory.
    grad = torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))
    for a, b in zip(*(torch.autograd.grad(y, (x, norm.weight), grad) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected)


def test_rms_norm_has_second_derivatives_and_passes_through_functorch():
    torch.manual_seed(0)
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)

    def norm(x, weight):
        return _RMSNormFunction.apply(x, weight, 1e-6)[0]

    assert torch.autograd.gradcheck(norm, (x, weight))
    assert torch.autograd.gradgradcheck(norm, (x, weight))
    found = torch.func.grad(lambda x: norm(x, weight).square().sum())(x)
    expected = torch.func.grad(lambda x: formula(x, weight, 1e-6).square().sum())(x)
    torch.testing.assert_close(found, expected)


def test_rms_norm_of_zeros_has_finite_gradients():
    norm = HfGptRMSNorm(4)
    x = torch.zeros(2, 4, requires_grad=True)
    norm(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_rms_norm_under_autocast_has_gradients_in_full_precision():
    torch.manual_seed(0)
    norm, x, grad = HfGptRMSNorm(64), torch.randn(5, 64, requires_grad=True), torch.randn(5, 64)
    (expected,) = torch.autograd.grad(norm(x), x, grad)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(norm(x), x, grad)
    torch.testing.assert_close(found, expected)


def test_squared_relu_and_its_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    x, grad = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    found, expected = HfGptSquaredReLU()(x), torch.relu(x).square()
    assert "SquaredReLUFunction" in type(found.grad_fn).__name__
    assert torch.equal(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, grad)[0] for y in (found, expected)))
    double = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_SquaredReLUFunction.apply, double)
    assert torch.autograd.gradgradcheck(_SquaredReLUFunction.apply, double)
    assert torch.equal(HfGptSquaredReLU()(x.detach().bfloat16()), torch.relu(x.detach().bfloat16()).square())


def test_gradients_of_each_text_by_vmap():
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(HfGptRMSNorm(4), torch.nn.Linear(4, 6), HfGptSquaredReLU())
    weights = dict(mlp.named_parameters())
    texts = torch.randn(3, 5, 4)

    def loss(weights, text):
        return torch.func.functional_call(mlp, weights, (text,)).sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, texts)
    for number, text in enumerate(texts):
        expected = torch.autograd.grad(loss(weights, text), list(weights.values()))
        for name, gradient in zip(weights, expected, strict=True):
            torch.testing.assert_close(found[name][number], gradient)
