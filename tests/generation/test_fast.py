"""`generate(custom_generate=fast_generate)` against `generate` as it comes."""

import functools
import gc

import pytest
import torch

from hf_gpt.generation.decoding import fast_generate as fast
from hf_gpt.generation.decoding.cached_decoder import DecoderWeights
from hf_gpt.generation.decoding.fast_generate import fast_generate
from hf_gpt.generation.decoding.native.decoder import NativeWeights


pytestmark = pytest.mark.usefixtures("steps")
PROMPTS = torch.tensor([[1, 5, 6, 7], [0, 0, 1, 9], [0, 1, 3, 4]])
MASK = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
SETTINGS = {"max_new_tokens": 9, "eos_token_id": 2, "pad_token_id": 0}


def both(model, **settings):
    found = []
    for method in (fast_generate, None):
        torch.manual_seed(0)
        inputs = {"input_ids": PROMPTS, "attention_mask": MASK, "custom_generate": method}
        found.append(model.generate(**{**inputs, **SETTINGS, **settings}))
    return found


@pytest.fixture
def decoded(monkeypatch):
    """Counts the texts that went through decoding steps of our own."""
    made = []
    for weights in (DecoderWeights, NativeWeights):

        def start(self, model, ids, *args, inner=weights.start):
            made.append(len(ids))
            return inner(self, model, ids, *args)

        monkeypatch.setattr(weights, "start", start)
    return made


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False},
        {"do_sample": True, "temperature": 1.3, "top_k": 7, "top_p": 0.9},
        {"do_sample": False, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "eos_token_id": [2, 7]},
        {"do_sample": True, "num_return_sequences": 3, "eos_token_id": None},
        {"input_ids": PROMPTS[:1], "attention_mask": MASK[:1], "do_sample": False},
    ],
)
def test_same_tokens(make_generator, decoded, settings):
    found, expected = both(make_generator(), **settings)
    assert found.tolist() == expected.tolist() and decoded


def test_same_scores(make_generator):
    settings = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "temperature": 2.0}
    found, expected = both(make_generator(), do_sample=True, **settings)
    assert found.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(torch.stack(found.scores), torch.stack(expected.scores), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "right padding", "attentions", "too long"])
def test_others_go_their_own_way(make_generator, decoded, kind):
    model = make_generator(kind if kind in ("gpt2", "llama") else "hf_gpt")
    settings = {
        "right padding": {"attention_mask": MASK.flip(1)},
        "attentions": {"output_attentions": True, "return_dict_in_generate": True},
        "too long": {"max_new_tokens": model.config.max_position_embeddings},
    }.get(kind, {})
    found, expected = both(model, do_sample=False, **settings)
    if kind == "attentions":
        assert found.attentions is not None
        found, expected = found.sequences, expected.sequences
    assert found.tolist() == expected.tolist() and not decoded


def test_weights_of_each_type_are_kept_until_they_change(make_generator):
    model = make_generator()
    both(model)
    (weights,) = fast._kept[model][1].values()
    model.generate(torch.ones(1, 2, dtype=torch.int64), custom_generate=fast_generate, weight_dtype="bfloat16")
    both(model)
    assert next(iter(fast._kept[model][1].values())) is weights and len(fast._kept[model][1]) == 2
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(-3.0)
    found, expected = both(model, do_sample=False)
    assert found.tolist() == expected.tolist() and weights not in fast._kept[model][1].values()
    del model, weights
    gc.collect()
    assert not len(fast._kept)


def test_rounded_weights(make_generator):
    model = make_generator()
    settings = {"do_sample": False, "custom_generate": fast_generate, "attention_mask": MASK, **SETTINGS}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    rounded = model.generate(PROMPTS, weight_dtype="bfloat16", **settings)
    exact = model.generate(PROMPTS, **settings)
    difference = (rounded.logits[1] - exact.logits[1]).abs().max()
    assert 0 < difference < 0.1


class Kept:
    """What a streamer is given."""

    def __init__(self):
        self.tokens, self.ended = [], 0

    def put(self, tokens):
        self.tokens.append(tokens.tolist())

    def end(self):
        self.ended += 1


@pytest.mark.parametrize("kind", ["hf_gpt", "gpt2"])
def test_a_streamer_gets_the_new_tokens(make_generator, kind):
    streamer = Kept()
    inputs = {"input_ids": PROMPTS, "attention_mask": MASK, "do_sample": False, **SETTINGS}
    method = functools.partial(fast_generate, streamer=streamer)
    found = make_generator(kind).generate(**inputs, custom_generate=method)
    assert list(zip(*streamer.tokens, strict=True)) == [tuple(row) for row in found[:, 4:].tolist()]
    assert streamer.ended == 1


def test_beams_are_refused(make_generator):
    with pytest.raises(ValueError, match="num_beams=1"):
        both(make_generator(), num_beams=2)
