"""Drawing in blocks against sums over the whole vocabulary."""

import pytest
import torch

from hf_gpt.generation.sampling.distribution import SamplingConfig, unpack
from hf_gpt.generation.sampling.inverse_cdf import sample


pytestmark = pytest.mark.usefixtures("steps")


@pytest.mark.parametrize("vocab_size", [20, 1024, 5003])
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.7}, {"top_k": 50}, {"top_p": 0.8, "min_p": 0.001}, {"temperature": 0}]
)
def test_inversion_and_logps(vocab_size, settings):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, vocab_size, generator=generator) * 3
    uniforms = torch.rand(300, dtype=torch.float64, generator=generator)
    tokens, logps, model_logps, _ = sample(logits, uniforms, SamplingConfig(**settings), with_model_logps=True)
    own = logits.double().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(model_logps.double(), own, rtol=0, atol=1e-5)
    temperature = settings.get("temperature", 1)
    if temperature == 0:
        assert tokens.tolist() == logits.argmax(-1).tolist() and logps.tolist() == [0.0] * 300
        return
    expected = kept_probabilities(logits, **settings).log().gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logps.double(), expected, rtol=0, atol=1e-5)
    if settings.keys() <= {"temperature"}:
        heights = (logits.double() / temperature).softmax(-1).cumsum(-1)
        upper = heights.gather(-1, tokens[:, None])[:, 0]
        lower = torch.where(tokens > 0, heights.gather(-1, (tokens - 1).clamp(min=0)[:, None])[:, 0], 0)
        assert ((lower - 1e-6 <= uniforms) & (uniforms <= upper + 1e-6)).all()
    if "top_k" in settings:
        kth = logits.topk(min(50, vocab_size), -1).values[:, -1]
        assert (logits.gather(-1, tokens[:, None])[:, 0] >= kth).all()


def kept_probabilities(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """What is drawn from, by sorting each row in float64; of equal tokens the first stay, of top-k's all."""
    found = (logits.double() / temperature).softmax(-1)
    if top_k:
        found = found.masked_fill(found < found.topk(min(top_k, found.shape[-1]), -1).values[:, -1:], 0)
        found = found / found.sum(-1, keepdim=True)
    if top_p < 1:
        ordered, order = found.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        found = torch.zeros_like(found).scatter_(-1, order, ordered * (before < top_p))
    found = found.masked_fill(found < min_p * found.amax(-1, keepdim=True), 0)
    return found / found.sum(-1, keepdim=True)


@pytest.mark.parametrize("are_equal", [False, True])
@pytest.mark.parametrize("vocab_size", [7, 1024, 5003])
@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 1},
        {"top_k": 50, "temperature": 1.3},
        {"top_p": 1e-6},
        {"top_p": 0.5},
        {"top_p": 0.97, "temperature": 1.5},
        {"top_p": 0.999999},
        {"min_p": 0.02, "temperature": 2.0},
        {"min_p": 1.0},
        {"top_k": 400, "top_p": 0.9, "min_p": 0.01, "temperature": 0.8},
    ],
)
def test_truncated_distributions(vocab_size, settings, are_equal):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(200, vocab_size, generator=generator) * 3
    if are_equal:
        # Many tokens of each probability, at the border too.
        logits = logits.round()
    uniforms = torch.rand(200, dtype=torch.float64, generator=generator)
    tokens, logps, model_logps, support = sample(logits, uniforms, SamplingConfig(**settings), True, with_support=True)
    expected = kept_probabilities(logits, **settings)
    heights = expected.cumsum(-1)
    upper = heights.gather(-1, tokens[:, None])[:, 0]
    own = expected.gather(-1, tokens[:, None])[:, 0]
    assert (own > 0).all()
    assert ((upper - own - 1e-6 <= uniforms) & (uniforms <= upper + 1e-6)).all()
    # Of what was sampled from, and under the logits as they are.
    whole = logits.double().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(model_logps.double(), whole, rtol=0, atol=1e-5)
    if settings.get("top_k", 0) < vocab_size:
        kept = unpack(support, vocab_size)
        assert kept.gather(-1, tokens[:, None]).all()
        # Rounding moves tokens at the border of some rows.
        is_same = (kept == (expected > 0)).all(-1)
        moved = (kept != (expected > 0)) * (logits.double() / settings.get("temperature", 1)).softmax(-1)
        assert is_same.double().mean() > 0.9 or moved.sum(-1).max() < 1e-6
        torch.testing.assert_close(logps[is_same].double(), own.log()[is_same], rtol=0, atol=2e-5)
        policy = SamplingConfig(**settings).policy_logits(logits, support)
        again = policy.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        torch.testing.assert_close(logps, again, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_compiled_draws_from_no_numbers_end_and_stay_in_the_vocabulary(value, steps):
    if steps != "compiled":
        pytest.skip("PyTorch refuses them itself")
    logits = torch.full((2, 1500), value)
    uniforms = torch.tensor([0.1, 0.9], dtype=torch.float64)
    tokens = sample(logits, uniforms, SamplingConfig(top_p=0.9, top_k=5, min_p=0.1)).tokens
    assert ((tokens >= 0) & (tokens < 1500)).all()


def test_ends_of_the_range_and_equal_logits():
    logits = torch.full((3, 2000), -torch.inf)
    logits[:, [700, 1999]] = 0.0
    uniforms = torch.tensor([0.0, 0.49, 1 - 1e-16], dtype=torch.float64)
    tokens, logps = sample(logits, uniforms, SamplingConfig())[:2]
    assert tokens.tolist() == [700, 700, 1999]
    torch.testing.assert_close(logps, torch.full((3,), 0.5).log())
    assert sample(logits, uniforms, SamplingConfig(temperature=0)).tokens.tolist() == [700] * 3
