"""With a cache a token sees the same window as without one, down to a window of the token alone."""

import pytest
import torch

from hf_gpt import HfGptConfig, HfGptForCausalLM, fast_generate


def make(window, attention):
    config = HfGptConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=32,
        initializer_range=0.3,
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        attn_implementation=attention,
    )
    torch.manual_seed(0)
    return HfGptForCausalLM(config).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [1, 2, 3, 7])
@torch.no_grad()
def test_generate_is_the_pass_without_a_cache(window, attention):
    model = make(window, attention)
    ids, mask = torch.randint(3, 40, (50, 5)), torch.ones(50, 5, dtype=torch.int64)
    mask[::3, :2] = 0
    settings = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected, seen = ids, mask
    for _ in range(10):
        positions = (seen.cumsum(-1) - 1).clamp(min=0)
        logits = model(expected, attention_mask=seen, position_ids=positions, use_cache=False).logits[:, -1:]
        expected, seen = torch.cat([expected, logits.argmax(-1)], 1), torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
    assert model.generate(ids, attention_mask=mask, **settings).equal(expected)
    assert model.generate(ids, attention_mask=mask, cache_implementation="static", **settings).equal(expected)
    assert model.generate(ids, attention_mask=mask, custom_generate=fast_generate, **settings).equal(expected)
