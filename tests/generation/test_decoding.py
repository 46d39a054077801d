"""The fast decoding steps against the model's own forward pass, for every switch of the architecture."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.generation.decoding.cached_decoder import CachedDecoder, DecoderWeights, make_weights
from hf_gpt.generation.decoding.linear import check_weight_dtype
from hf_gpt.generation.decoding.plain_decoder import can_decode
from hf_gpt.generation.scoring.logprobs import completion_logps
from tests.sampling_options import rollout


SWITCHES = {
    "default": {},
    "gpt2-like": {
        "position_embedding_type": "learned",
        "norm_type": "layernorm",
        "use_qk_norm": False,
        "attention_bias": True,
        "mlp_bias": True,
        "hidden_act": "gelu_new",
    },
    "llama-like": {"use_qk_norm": False, "is_gated_act": True, "hidden_act": "silu", "num_key_value_heads": 2},
    "qwen3-like": {"is_gated_act": True, "hidden_act": "silu", "num_key_value_heads": 1, "head_dim": 12},
    "no positions": {"position_embedding_type": "none"},
    "sliding": {"sliding_window": 5},
    "mixed layers": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "softcap": {"final_logit_softcapping": 3.0, "logit_scale": 1.5},
    "untied": {"tie_word_embeddings": False, "attention_out_bias": True},
    "relu": {"hidden_act": "relu"},
    "gelu": {"hidden_act": "gelu", "is_gated_act": True, "mlp_bias": True},
    "odd sizes": {"hidden_size": 30, "head_dim": 6, "num_attention_heads": 3, "intermediate_size": 37},
    "layer norm without bias": {"norm_type": "layernorm", "norm_bias": False},
    "unusual activation": {"hidden_act": "mish"},
    "scaled rope": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
}


def need(weight_dtype):
    try:
        check_weight_dtype(weight_dtype, torch.device("cpu"))
    except ValueError as error:
        pytest.skip(str(error))


def build(**switches) -> HfGptForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    model = HfGptForCausalLM(HfGptConfig(**{"vocab_size": 61, "initializer_range": 0.3, **sizes, **switches})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@torch.no_grad()
def compare(model, mask, tokens=12, selected=None, weight_dtype=None, **tolerance):
    """Appends the same tokens to both ways of computing; the logits of every step must agree."""
    ids = torch.randint(0, 61, mask.shape)
    steps = make_weights(model, weight_dtype, len(ids)).start(model, ids, mask, tokens)
    for step in range(tokens):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        expected = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, -1]
        limits = tolerance or {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(steps.next_logits().to(expected.dtype), expected, **limits)
        if step == 5 and selected is not None:
            ids, mask = ids[selected], mask[selected]
            steps.select(torch.tensor(selected))
        samples = torch.randint(0, 61, (len(ids),))
        ids, mask = torch.cat([ids, samples[:, None]], 1), torch.cat([mask, torch.ones_like(samples)[:, None]], 1)
        steps.append(samples)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
@pytest.mark.parametrize("padded", [False, True])
def test_logits_are_those_of_the_model(switches, padded):
    mask = torch.ones(3, 7, dtype=torch.int64)
    if padded:
        mask[1, :4] = 0
        mask[2, :6] = 0
    compare(build(**switches), mask, selected=[2, 0])


@pytest.mark.usefixtures("steps")
def test_one_row_and_one_token():
    compare(build(), torch.ones(1, 1, dtype=torch.int64))


@pytest.mark.usefixtures("steps")
def test_selecting_before_the_first_token_is_appended():
    model, ids = build(), torch.randint(0, 61, (3, 4))
    steps = make_weights(model, None, 3).start(model, ids, torch.ones_like(ids), 4)
    with torch.no_grad():
        steps.next_logits()
        steps.select(torch.tensor([1]))
        steps.append(torch.tensor([5]))
        whole = model(torch.cat([ids[1:2], torch.tensor([[5]])], 1), use_cache=False).logits[:, -1]
        torch.testing.assert_close(steps.next_logits(), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("switches", ["gpt2-like", "qwen3-like"])
def test_rounded_weights_stay_near(weight_dtype, switches):
    need(weight_dtype)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    tolerance = {"rtol": 0.05, "atol": 0.1 if weight_dtype else 1e-5}
    compare(build(**SWITCHES[switches], initializer_range=0.1), mask, weight_dtype=weight_dtype, **tolerance)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("weight_dtype", ["bfloat16", "int8"])
def test_logps_are_those_of_the_distribution_that_was_drawn_from(weight_dtype):
    """Frequencies of a second token tell the rounded distribution, which is far from the model's, by its own logps."""
    need(weight_dtype)
    model = build(initializer_range=0.6)
    rows = 20_000
    prompt = torch.tensor([[3, 7, 9]]).expand(rows, -1)
    samples = rollout(
        model, prompt, max_new_tokens=2, weight_dtype=weight_dtype, generator=torch.Generator().manual_seed(0)
    )
    first = samples.completions[:, 0].mode().values
    here = samples.completions[:, 0] == first
    assert here.sum() > 1000
    tokens, logps = samples.completions[here, 1], samples.logps[here, 1]
    for token in tokens.unique():
        share = logps[tokens == token][0].exp()
        torch.testing.assert_close(logps[tokens == token].exp(), share.expand(int((tokens == token).sum())))
        found = (tokens == token).float().mean()
        assert (found - share).abs() < 5 * (share * (1 - share) / here.sum()).sqrt() + 1e-4


@pytest.mark.usefixtures("steps")
def test_a_row_of_int8_depends_on_itself_alone():
    need("int8")
    model, ids = build(), torch.randint(0, 61, (5, 4))
    uniforms = torch.rand(5, 8, dtype=torch.float64)
    settings = {"max_new_tokens": 8, "weight_dtype": "int8"}
    together = rollout(model, ids, uniforms=uniforms, **settings)
    for row in range(5):
        alone = rollout(model, ids[row : row + 1], uniforms=uniforms[row : row + 1], **settings)
        assert alone.completions[0].tolist() == together.completions[row].tolist()
        torch.testing.assert_close(alone.logps[0], together.logps[row], rtol=0, atol=2e-2)


def test_completions_of_one_prompt_share_its_reading():
    model, ids = build(), torch.randint(0, 61, (2, 4))
    seen = []
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    rollout(model, ids, num_return_sequences=3, max_new_tokens=2)
    handle.remove()
    # The hook sends the model through its own forward pass; without it the prompt is read once.
    assert seen[0] == (6, 4)
    weights = DecoderWeights(model)
    model.model.forward = (
        lambda inner: lambda **inputs: seen.append(tuple(inputs["input_ids"].shape)) or inner(**inputs)
    )(model.model.forward)
    repeated = ids.repeat_interleave(3, 0)
    with torch.no_grad():
        logits = CachedDecoder(model, repeated, torch.ones_like(repeated), 2, weights).next_logits()
        expected = model(repeated).logits[:, -1]
    assert seen[-2] == (2, 4)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("steps")
def test_autocast_chooses_bfloat16():
    model = build(initializer_range=0.1)
    settings = {"num_return_sequences": 3, "bos_token_id": 1, "max_new_tokens": 6, "temperature": 0}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = rollout(model, **settings)
    expected = rollout(model, weight_dtype="bfloat16", **settings)
    assert found.completions.tolist() == expected.completions.tolist()
    torch.testing.assert_close(found.logps, expected.logps, rtol=0, atol=0)


def test_other_models_run_under_autocast(make_generator):
    gpt2 = make_generator("gpt2")
    settings = {"num_return_sequences": 3, "bos_token_id": 1, "max_new_tokens": 6, "generator": None}
    samples = rollout(gpt2, weight_dtype="bfloat16", **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        again = completion_logps(
            gpt2, samples.sequences, samples.attention_mask, samples.prompt_length, samples.completions
        )
    torch.testing.assert_close(samples.logps, again, rtol=0, atol=0.05)
    with pytest.raises(ValueError, match="there is no weight_dtype 'int4'"):
        rollout(gpt2, weight_dtype="int4", **settings)


@pytest.mark.usefixtures("steps")
def test_a_model_in_bfloat16_stays_in_it():
    compare(build(initializer_range=0.1).to(torch.bfloat16), torch.ones(2, 5, dtype=torch.int64), rtol=0.05, atol=0.1)


def test_only_plain_decoders_of_ours_are_taken():
    peft = pytest.importorskip("peft")
    assert can_decode(build())
    assert not can_decode(build(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}))
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4))
    assert not can_decode(gpt2)
    adapted = peft.get_peft_model(build(), peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert not can_decode(adapted)
    # The adapter's layers stand inside the model that was adapted.
    assert not can_decode(adapted.get_base_model())
    hooked = build()
    hooked.model.layers[0].register_forward_hook(lambda *_: None)
    assert not can_decode(hooked)
