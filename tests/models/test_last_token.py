"""A score of one token: the last layer works out that token alone, and the result is what it was."""

import pytest
import torch
from transformers import DynamicCache

from hf_gpt import HfGptConfig, HfGptForSequenceClassification, HfGptModel


OPTIONS = {
    "plain": {},
    "grouped": {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "sdpa"},
    "eager": {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "eager"},
    "learned": {"position_embedding_type": "learned", "norm_type": "layernorm"},
    "sliding": {"sliding_window": 3, "layer_types": ["full_attention", "sliding_attention"]},
    "bidirectional": {"is_causal": False},
    "gated": {"hidden_act": "silu", "is_gated_act": True, "use_qk_norm": False},
}


def discriminator(**options):
    attention = options.pop("attn_implementation", "sdpa")
    config = HfGptConfig.preset(
        "nano",
        **{"vocab_size": 64, "num_labels": 1, "pad_token_id": 0, "output_projection_init": "normal", **options},
        num_hidden_layers=2,
    )
    config._attn_implementation = attention
    model = HfGptForSequenceClassification(config)
    # Eager attention's softmax is in float32, where the mask of float64 is infinite.
    return model if attention == "eager" else model.double()


def assert_same(found, expected):
    is_double = expected[0].dtype == torch.float64
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if is_double else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **tolerance)


def inputs(padding):
    ids = torch.randint(1, 64, (3, 9))
    if padding == "none":
        return {"input_ids": ids}
    if padding == "packed":
        return {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])}
    if padding == "ids":
        ids[1, 6:] = 0
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    mask[1, slice(3) if padding == "left" else slice(-3, None)] = 0
    mask[2, slice(1) if padding == "left" else slice(-1, None)] = 0
    return {"input_ids": ids, "attention_mask": mask}


def scores_and_gradients(model, **given):
    model.zero_grad()
    logits = model(**given).logits
    (logits * torch.tensor([[1.0], [-2.0], [0.5]]).to(logits)).sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def widths(model, **given):
    """Tokens that the MLP of each layer sees."""
    seen = []
    handles = [
        layer.mlp.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
        for layer in model.model.layers
    ]
    model(**given)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("padding", ["none", "left", "right", "ids", "packed"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_scores_and_gradients_are_those_of_all_tokens(options, padding):
    model, given = discriminator(**options), inputs(padding)
    found = scores_and_gradients(model, **given)
    expected = scores_and_gradients(model, **given, output_hidden_states=True)
    assert_same(found, expected)
    assert widths(model.train(), **given) == [9, 9]
    fresh = discriminator(**options)
    assert widths(fresh, **given) == [9, 1]


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_with_gradient_checkpointing(use_reentrant):
    model, given = discriminator(), inputs("left")
    model.train()
    expected = scores_and_gradients(model, **given)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    assert_same(scores_and_gradients(model, **given), expected)


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_after_a_cache(implementation, padding):
    model, given = discriminator(attn_implementation=implementation).eval(), inputs(padding)
    expected = model(**given).logits
    cache, mask = DynamicCache(), given.get("attention_mask", torch.ones(3, 9, dtype=torch.long))
    ids = given["input_ids"]
    model(input_ids=ids[:, :4], attention_mask=mask[:, :4], past_key_values=cache)
    rest = {"input_ids": ids[:, 4:], "past_key_values": cache}
    found = model(**rest, attention_mask=mask).logits
    assert_same([found], [expected])


def test_from_embeddings_and_with_a_ready_mask():
    model, given = discriminator().eval(), inputs("none")
    expected = model(**given).logits
    embeddings = model.get_input_embeddings()(given["input_ids"])
    torch.testing.assert_close(model(inputs_embeds=embeddings).logits, expected)
    ready = torch.ones(9, 9, dtype=torch.bool).tril()[None, None].expand(3, 1, -1, -1)
    torch.testing.assert_close(model(**given, attention_mask=ready).logits, expected)


def test_who_looks_on_sees_every_token():
    model, given = discriminator(), inputs("none")
    shapes = []
    expected = model(**given).logits
    model.model.norm.register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    torch.testing.assert_close(model(**given).logits, expected)
    assert shapes == [(3, 9, model.config.hidden_size)]


def test_single_last_hidden_states_of_the_decoder():
    model, given = discriminator().model.eval(), inputs("right")
    assert isinstance(model, HfGptModel)
    whole = model(**given).last_hidden_state
    positions = torch.tensor([8, 2, 0])
    found = model(**given, query_positions=positions).last_hidden_state
    torch.testing.assert_close(found, whole[torch.arange(3), positions][:, None])
    recorded = model(**given, query_positions=positions, output_hidden_states=True)
    torch.testing.assert_close(recorded.last_hidden_state, found)
