"""Speculative decoding by int8 guesses: the logits of plain decoding bit for bit, in fewer steps."""

import pytest
import torch

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.generation.decoding import fast_generate as fast
from hf_gpt.generation.decoding.fast_generate import fast_generate
from hf_gpt.generation.decoding.native import speculation
from hf_gpt.generation.decoding.native.decoder import NativeWeights
from hf_gpt.generation.decoding.native.speculation import MOST_DRAFTED, Pace, SpeculativeDecoder
from hf_gpt.generation.decoding.native.structures import TYPES, native
from hf_gpt.generation.sampling.inverse_cdf import likeliest


NEW_TOKENS = 40

SWITCHES = {
    "default": {},
    "gpt2-like": {
        "position_embedding_type": "learned",
        "norm_type": "layernorm",
        "hidden_act": "gelu_new",
        "attention_bias": True,
        "mlp_bias": True,
        "use_qk_norm": False,
    },
    "qwen3-like": {"is_gated_act": True, "hidden_act": "silu", "num_key_value_heads": 2, "head_dim": 20},
    "windows": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5},
    "odd sizes": {"hidden_size": 30, "head_dim": 6, "num_attention_heads": 3, "intermediate_size": 37},
    "softcap": {"final_logit_softcapping": 3.0},
}


@pytest.fixture(autouse=True)
def _int8():
    if native() is None or not native().has_int8:
        pytest.skip("there is no C compiler, or no int8 products for this processor")


def make(**switches) -> HfGptForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    return HfGptForCausalLM(HfGptConfig(**{"vocab_size": 300, "initializer_range": 0.2, **sizes, **switches})).eval()


@torch.no_grad()
def write(steps, choose) -> tuple[list[int], torch.Tensor]:
    """Tokens that `choose(logits, step)` takes, and the logits of every step."""
    tokens, seen = [], []
    for step in range(NEW_TOKENS):
        logits = steps.next_logits()
        seen.append(logits.clone())
        token = choose(logits, step)
        tokens.append(int(token))
        steps.append(token)
    return tokens, torch.cat(seen)


def choices(seed: int):
    """The likeliest token, any token at all, and by turns one and the other."""
    anything = torch.randint(0, 300, (NEW_TOKENS, 1), generator=torch.Generator().manual_seed(seed))
    return {
        "greedy": lambda logits, step: likeliest(logits),
        "anything": lambda logits, step: anything[step],
        "both": lambda logits, step: likeliest(logits) if step % 5 else anything[step],
    }


@pytest.mark.parametrize("choice", ["greedy", "anything", "both"])
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16"])
@pytest.mark.parametrize("switches", SWITCHES)
def test_logits_are_those_of_plain_decoding(monkeypatch, switches, weight_dtype, choice):
    # Guesses at every step, whatever they cost.
    monkeypatch.setattr(Pace, "measure", lambda *_: None)
    monkeypatch.setattr(Pace, "most", lambda pace: pace.limit)
    model = make(**SWITCHES[switches])
    weights, drafts = NativeWeights(model, weight_dtype), NativeWeights(model, "int8")
    ids, mask = torch.randint(0, 300, (1, 9)), torch.tensor([[0, 0] + [1] * 7])
    expected = write(weights.start(model, ids, mask, NEW_TOKENS), choices(1)[choice])
    steps = SpeculativeDecoder(model, ids, mask, NEW_TOKENS, weights, drafts)
    found = write(steps, choices(1)[choice])
    assert found[0] == expected[0] and found[1].equal(expected[1])


def test_several_tokens_take_one_step(monkeypatch):
    monkeypatch.setattr(Pace, "measure", lambda *_: None)
    monkeypatch.setattr(Pace, "most", lambda pace: pace.limit)
    model = make(initializer_range=0.5)
    weights, drafts = NativeWeights(model), NativeWeights(model, "int8")
    ids = torch.randint(0, 300, (1, 4))
    steps = SpeculativeDecoder(model, ids, torch.ones_like(ids), NEW_TOKENS, weights, drafts)
    rows = []
    plain = steps._step
    monkeypatch.setattr(
        steps, "_step", lambda tokens, *rest, **named: rows.append(len(tokens)) or plain(tokens, *rest, **named)
    )
    write(steps, choices(0)["greedy"])
    # The prompt apart.
    assert len(rows) - 1 < NEW_TOKENS / 3 and max(rows) <= MOST_DRAFTED[TYPES["float32"]] + 1


def test_what_is_guessed_ends_at_a_doubtful_token():
    """The chance of a guess is that of its gap under the error; guessing ends where all of them fall below a share."""
    model = make(initializer_range=0.3)
    weights, drafts = NativeWeights(model), NativeWeights(model, "int8")
    ids = torch.randint(0, 300, (1, 4))
    steps = SpeculativeDecoder(model, ids, torch.ones_like(ids), NEW_TOKENS, weights, drafts)
    steps.append(likeliest(steps.next_logits()))
    pace = steps._pace
    most = steps._draft(steps._most)
    assert most == steps._most
    gaps = steps._gaps[:most].double()
    for error in (0.01, 0.1, 0.5):
        for pace.least in (0.3, 0.9):
            pace.error, pace.trust = error, 0.97
            chances = (torch.special.ndtr(gaps / error) * pace.trust).cumprod(0)
            expected = int((chances > pace.least).int().cumprod(0).sum()) + 1
            assert steps._draft(steps._most) == min(expected, most)


def take_block(pace: Pace, draft_seconds: float, is_right: bool) -> int:
    count = pace.most()
    pace.measure(count, count * draft_seconds, 1.0)
    # A wrong guess ends its block.
    for _ in range(count if is_right else min(count, 1)):
        pace.judge(is_right, 0.99)
    return count


@pytest.mark.parametrize(("draft_seconds", "is_right"), [(1.2, True), (0.2, False)])
def test_guesses_that_do_not_pay_end(draft_seconds, is_right):
    """Where guesses take longer than steps, or never come true, one is tried now and then."""
    pace = Pace(11)
    counts = [take_block(pace, draft_seconds, is_right) for _ in range(200)]
    assert counts[0] == 0 and 1 <= sum(counts[100:]) <= 4


def test_guesses_that_pay_go_on():
    pace = Pace(11)
    counts = [take_block(pace, 0.2, True) for _ in range(50)]
    assert counts[:2] == [0, 4] and set(counts[2:]) == {11} and 0.5 < pace.least < 0.9


@pytest.mark.parametrize("do_sample", [False, True])
def test_generate_is_the_same_with_and_without(monkeypatch, do_sample):
    model, ids = make(initializer_range=0.4), torch.randint(0, 300, (1, 5))
    made = []
    start = speculation.SpeculativeDecoder
    monkeypatch.setattr(fast, "SpeculativeDecoder", lambda *args, **named: made.append(1) or start(*args, **named))
    settings = {"do_sample": do_sample, "max_new_tokens": NEW_TOKENS, "attention_mask": torch.ones_like(ids)}
    settings |= {"output_logits": True, "return_dict_in_generate": True, "repetition_penalty": 1.2}
    outputs = []
    for named in ({}, {"speculative": False}, {"weight_dtype": "int8"}):
        torch.manual_seed(3)
        outputs.append(model.generate(ids, custom_generate=fast_generate, **settings, **named))
    assert len(made) == 1
    assert outputs[0].sequences.equal(outputs[1].sequences)
    assert torch.stack(outputs[0].logits).equal(torch.stack(outputs[1].logits))
    expected = model.generate(ids, **{**settings, "do_sample": False})
    if not do_sample:
        assert outputs[0].sequences.equal(expected.sequences)


def test_several_or_short_texts_are_not_speculated(monkeypatch):
    monkeypatch.setattr(fast, "SpeculativeDecoder", None)
    model = make()
    for rows, new_tokens in ((2, NEW_TOKENS), (1, 8)):
        ids = torch.randint(0, 300, (rows, 5))
        model.generate(ids, max_new_tokens=new_tokens, custom_generate=fast_generate)
