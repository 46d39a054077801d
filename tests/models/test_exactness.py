"""The same numbers by every way of computing them. Each tolerance is stated; the default is 1e-5 in fp32."""

import copy

import pytest
import torch
from transformers import StaticCache

from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptModel
from tests.conformance.specs import BY_NAME


TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
OURS = [spec.name for spec in BY_NAME.values() if spec.prefix == "HfGpt"]
CAUSAL = [name for name in OURS if name not in ("bidirectional", "discriminator")]


def build(name, model_class=HfGptModel, attention="sdpa", **overrides):
    config = BY_NAME[name].build_config(**{"output_projection_init": "normal", **overrides})
    config.initializer_range = 0.2
    torch.manual_seed(0)
    return model_class._from_config(config, attn_implementation=attention).eval()


def tokens(*shape):
    return torch.randint(3, 99, shape)


@pytest.mark.parametrize("name", OURS)
def test_sdpa_equals_eager(name):
    ids = tokens(2, 17)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    eager, sdpa = build(name, attention="eager"), build(name)
    expected, actual = (model(ids, attention_mask=mask).last_hidden_state for model in (eager, sdpa))
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], **TOLERANCE)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("name", OURS)
def test_packed_documents_equal_separate_ones(name, attention):
    model = build(name, attention=attention)
    lengths = [7, 1, 12, 5]
    documents = [tokens(1, length) for length in lengths]
    position_ids = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    with torch.no_grad():
        packed = model(torch.cat(documents, dim=1), position_ids=position_ids).last_hidden_state
        separate = torch.cat([model(ids).last_hidden_state for ids in documents], dim=1)
    torch.testing.assert_close(packed, separate, **TOLERANCE)


@pytest.mark.parametrize("name", CAUSAL)
def test_packed_gradients_equal_separate_ones(name):
    model = build(name, HfGptForCausalLM).train()
    documents = [tokens(1, 9), tokens(1, 6)]
    ids = torch.cat(documents, dim=1)
    position_ids = torch.cat([torch.arange(9), torch.arange(6)]).unsqueeze(0)
    labels = ids.clone()
    labels[:, 9] = -100
    model(ids, position_ids=position_ids, labels=labels, num_items_in_batch=13).loss.backward()
    packed = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for document in documents:
        model(document, labels=document, num_items_in_batch=13).loss.backward()
    separate = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(packed, separate, **TOLERANCE)


@pytest.mark.parametrize("name", CAUSAL)
def test_step_by_step_with_left_padding_equals_full_forward(name):
    model = build(name, HfGptForCausalLM)
    ids, short = tokens(1, 20), 13
    padded = torch.cat([torch.cat([torch.zeros(1, 7, dtype=torch.long), ids[:, :short]], 1), tokens(1, 20)])
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :7] = 0
    position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = model(ids[:, :short]).logits[0]
        cache, steps = None, []
        for start, end in [(0, 10), *((i, i + 1) for i in range(10, 20))]:
            output = model(
                padded[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=position_ids[:, start:end],
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1)[0, 7:], expected, **TOLERANCE)


def test_left_padding_needs_no_position_ids():
    """Learned positions count tokens, not padding, when only the mask is given."""
    model = build("gpt2_like")
    ids = tokens(1, 9)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 9, dtype=torch.long)], dim=1)
    with torch.no_grad():
        actual = model(padded, attention_mask=mask).last_hidden_state[:, 4:]
        torch.testing.assert_close(actual, model(ids).last_hidden_state, **TOLERANCE)


@pytest.mark.parametrize("name", CAUSAL)
def test_all_caches_generate_the_same(name):
    model = build(name, HfGptForCausalLM)
    ids = tokens(2, 6)
    settings = {"max_new_tokens": 12, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    settings |= {"eos_token_id": None, "pad_token_id": 0, "disable_compile": True}
    expected = model.generate(ids, use_cache=False, **settings)
    # The offloaded caches use CUDA streams.
    offloaded = ("offloaded", "offloaded_static") if torch.cuda.is_available() else ()
    for cache in ("dynamic", "static", *offloaded):
        actual = model.generate(ids, cache_implementation=cache, **settings)
        assert torch.equal(actual.sequences, expected.sequences), cache
        torch.testing.assert_close(torch.stack(actual.logits), torch.stack(expected.logits), **TOLERANCE)


@pytest.mark.parametrize("name", CAUSAL)
def test_assisted_decoding_gives_the_same_tokens(name):
    model = build(name, HfGptForCausalLM)
    ids = tokens(1, 6).repeat(1, 2)
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(ids, **settings)
    for draft_tokens in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": build("gpt2_like", HfGptForCausalLM)}):
        assert torch.equal(model.generate(ids, **settings, **draft_tokens), expected), draft_tokens


def test_static_cache_forward_equals_full_forward():
    model = build("sliding_window", HfGptForCausalLM)
    ids = tokens(1, 10)
    cache = StaticCache(config=model.config, max_cache_len=16)
    with torch.no_grad():
        logits = [model(ids[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(10)]
        torch.testing.assert_close(torch.cat(logits, dim=1), model(ids).logits, **TOLERANCE)


@pytest.mark.parametrize("name", CAUSAL)
def test_gradient_checkpointing_equals_plain(name):
    model = build(name, HfGptForCausalLM).train()
    ids = tokens(2, 11)
    losses, gradients = [], []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(losses[1], losses[0], rtol=0.0, atol=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("name", ["default", pytest.param("sliding_window", marks=pytest.mark.slow)])
def test_compiled_equals_eager(name):
    model = build(name, HfGptForCausalLM, chunked_loss="always").train()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, dynamic=False)
    ids = tokens(2, 16)
    position_ids = torch.cat([torch.arange(9), torch.arange(7)]).expand(2, -1)
    outputs = [m(ids, position_ids=position_ids, labels=ids, use_cache=False).loss for m in (model, compiled)]
    torch.testing.assert_close(outputs[1], outputs[0], **TOLERANCE)
    for output in outputs:
        output.backward()
    expected, actual = ([p.grad for p in m.parameters()] for m in (model, compiled))
    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("name", CAUSAL)
def test_bf16_is_within_its_rounding(name):
    """bf16 keeps 8 bits: hidden states agree with fp32 to a few units of 2^-8 of their size."""
    reference = build(name)
    rounded = copy.deepcopy(reference).to(torch.bfloat16)
    reference.load_state_dict({key: value.float() for key, value in rounded.state_dict().items()})
    ids = tokens(2, 16)
    with torch.no_grad():
        expected = reference(ids).last_hidden_state
        actual = rounded(ids).last_hidden_state.float()
    relative = (actual - expected).norm() / expected.norm()
    assert relative < 4 * 2**-8, relative


def test_gradients_of_eight_micro_batches_equal_one_batch():
    model = HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=99, output_projection_init="normal")).train()
    ids = tokens(8, 12)
    labels = ids.masked_fill(torch.rand(8, 12) < 0.4, -100)
    items = (labels[:, 1:] != -100).sum()
    model(ids, labels=labels).loss.backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for i in range(8):
        model(ids[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=items).loss.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], expected, rtol=0.0, atol=1e-6)
