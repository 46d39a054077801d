"""Drawing in blocks against sums over the whole vocabulary."""

import pytest
import torch

from hf_gpt.generation.drawing import draw_with_logps


pytestmark = pytest.mark.usefixtures("steps")


@pytest.mark.parametrize("vocab_size", [20, 1024, 5003])
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.7}, {"top_k": 50}, {"top_p": 0.8, "min_p": 0.001}, {"temperature": 0}]
)
def test_inversion_and_logps(vocab_size, settings):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, vocab_size, generator=generator) * 3
    uniforms = torch.rand(300, dtype=torch.float64, generator=generator)
    tokens, logps = draw_with_logps(logits, uniforms, **settings)
    expected = logits.double().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logps.double(), expected, rtol=0, atol=1e-5)
    temperature = settings.get("temperature", 1)
    if temperature == 0:
        assert tokens.tolist() == logits.argmax(-1).tolist()
        return
    if settings.keys() <= {"temperature"}:
        heights = (logits.double() / temperature).softmax(-1).cumsum(-1)
        upper = heights.gather(-1, tokens[:, None])[:, 0]
        lower = torch.where(tokens > 0, heights.gather(-1, (tokens - 1).clamp(min=0)[:, None])[:, 0], 0)
        assert ((lower - 1e-6 <= uniforms) & (uniforms <= upper + 1e-6)).all()
    if "top_k" in settings:
        kth = logits.topk(min(50, vocab_size), -1).values[:, -1]
        assert (logits.gather(-1, tokens[:, None])[:, 0] >= kth).all()


def test_ends_of_the_range_and_equal_logits():
    logits = torch.full((3, 2000), -torch.inf)
    logits[:, [700, 1999]] = 0.0
    uniforms = torch.tensor([0.0, 0.49, 1 - 1e-16], dtype=torch.float64)
    tokens, logps = draw_with_logps(logits, uniforms)
    assert tokens.tolist() == [700, 700, 1999]
    torch.testing.assert_close(logps, torch.full((3,), 0.5).log())
    assert draw_with_logps(logits, uniforms, temperature=0)[0].tolist() == [700] * 3
