"""Every option of `generate` with our decoding methods: as without them, or refused in words."""

import functools
import threading
from pathlib import Path

import pytest
import torch
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

import hf_gpt.generation
from hf_gpt.generation.decoding.fast_generate import fast_generate
from hf_gpt.generation.guidance.guided_generate import guided_generate


FOLDER = str(Path(hf_gpt.generation.__file__).parent)
PROMPTS = torch.tensor([[1, 5, 6, 7], [0, 0, 1, 9]])
MASK = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
SETTINGS = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
# Of one candidate a text is what `generate` samples.
GUIDED = {"discriminator": lambda ids, mask: ids.sum(1).float(), "num_candidates": 1, "guidance": "best_of_n"}
METHODS = {
    "fast": {"custom_generate": fast_generate},
    "guided": {"custom_generate": guided_generate, "do_sample": True, **GUIDED},
    "folder": {"custom_generate": FOLDER, "trust_remote_code": True, "do_sample": True, **GUIDED},
    "step by step": {
        "custom_generate": guided_generate,
        **GUIDED,
        "guidance": "stepwise",
        "guidance_top_k": 0,
        "guidance_weight": 0.0,
    },
}


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<pad>", "<s>", "</s>", *"abcdefghijklmnopq"]
    backend = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")


class Late(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] > 8)


class Keeping(LogitsProcessor):
    """Keeps what it is given and forbids a token."""

    def __init__(self):
        self.kept = []

    def __call__(self, input_ids, scores):
        self.kept.append(scores)
        return scores.index_fill(1, torch.tensor([5, 8]), -torch.inf)


def by(model, method, **settings):
    torch.manual_seed(0)
    inputs = {"input_ids": PROMPTS, "attention_mask": MASK, **SETTINGS, **method, **settings}
    inputs = {name: value() if name in MADE else value for name, value in inputs.items()}
    return model.generate(**inputs)


# Made anew for each call.
MADE = {"stopping_criteria", "logits_processor", "past_key_values"}
SAME = {
    "stopping criteria": {"stopping_criteria": lambda: StoppingCriteriaList([Late()])},
    "logits processor": {"logits_processor": lambda: LogitsProcessorList([Keeping()])},
    "max_time": {"max_time": 1e-9},
    "allowed tokens by row": {"prefix_allowed_tokens_fn": lambda row, ids: [3 + row, 11 + row, 15]},
    "several of each": {"num_return_sequences": 3},
    "bad words": {"bad_words_ids": [[5], [7, 8]]},
    "repetition penalty": {"repetition_penalty": 1.7},
    "penalty of the prompt": {"encoder_repetition_penalty": 3.0},
    "no n-grams of the prompt": {"encoder_no_repeat_ngram_size": 2},
    "classifier-free guidance": {"guidance_scale": 1.5},
    "one token": {"max_new_tokens": 1},
    "no token": {"max_new_tokens": 0},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "not in step": {"synced_gpus": False},
    "no padding token": {"pad_token_id": None, "eos_token_id": None},
    "a cache": {"past_key_values": DynamicCache},
    "embeddings": {"input_ids": None, "attention_mask": None, "inputs_embeds": torch.ones(2, 3, 16)},
}
# What a method refuses, by words of what it says.
REFUSED = {
    ("guided", "classifier-free guidance"): "guidance_scale",
    ("folder", "classifier-free guidance"): "guidance_scale",
    **{(name, "a cache"): "leave past_key_values out" for name in ("guided", "folder", "step by step")},
    **{(name, "embeddings"): "give input_ids" for name in ("guided", "folder", "step by step")},
}


@pytest.mark.parametrize("option", SAME)
@pytest.mark.parametrize("name", METHODS)
def test_an_option_works_as_without_or_is_refused(make_generator, name, option):
    model, method, settings = make_generator(), METHODS[name], SAME[option]
    plain = {"do_sample": method.get("do_sample", False)}
    try:
        expected = by(model, plain, **settings)
    except (ValueError, IndexError, RuntimeError) as error:
        with pytest.raises(type(error)):
            by(model, method, **settings)
        return
    if (name, option) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, option]):
            by(model, method, **settings)
        return
    found = by(model, method, **settings)
    length = max(found.shape[1], expected.shape[1])
    padded = [torch.nn.functional.pad(one, (0, length - one.shape[1])).tolist() for one in (found, expected)]
    assert padded[0] == padded[1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_beams": 2, "do_sample": False}, "num_beams=1"),
        ({"prompt_lookup_num_tokens": 3, "num_return_sequences": 1}, "prompt_lookup_num_tokens"),
        ({"penalty_alpha": 0.6, "top_k": 4, "do_sample": False}, "penalty_alpha"),
        ({"assistant_model": True}, "assistant_model"),
    ],
)
def test_other_ways_to_generate_are_refused(make_generator, name, settings, says):
    model = make_generator()
    if "assistant_model" in settings:
        settings = {"assistant_model": model}
    with pytest.raises(ValueError, match=says):
        by(model, METHODS[name], **settings)


def test_a_given_cache_is_filled_and_what_processors_keep_stays(make_generator):
    model = make_generator()
    cache, processors = DynamicCache(), [Keeping(), Keeping()]
    found = by(model, METHODS["fast"], past_key_values=lambda: cache)
    assert cache.get_seq_length() == found.shape[1] - 1
    for method, processor in zip((METHODS["fast"], {}), processors, strict=True):
        by(model, method, logits_processor=lambda one=processor: LogitsProcessorList([one]))
    torch.testing.assert_close(processors[0].kept, processors[1].kept, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output", ["output_scores", "output_logits", "output_attentions", "output_hidden_states"])
def test_what_is_asked_for_is_returned_or_refused(make_generator, output):
    model, asked = make_generator(), {output: True, "return_dict_in_generate": True}
    name = output.removeprefix("output_")
    expected = by(model, {}, **asked)[name]
    for method in ("fast", "step by step"):
        found = by(model, METHODS[method], **asked)[name]
        assert len(found) == len(expected)
    with pytest.raises(ValueError, match=output):
        by(model, METHODS["guided"], **asked)


@pytest.mark.parametrize("name", [*METHODS, "partial"])
@pytest.mark.parametrize("kind", ["hf_gpt", "gpt2"])
def test_an_iterator_gets_the_text_and_ends(make_generator, tokenizer, name, kind):
    model = make_generator(kind)
    partial = {"custom_generate": functools.partial(fast_generate, speculative=False)}
    method = METHODS.get(name, partial)
    one = {"input_ids": PROMPTS[:1], "attention_mask": MASK[:1]}
    expected = by(model, {"do_sample": method.get("do_sample", False)}, **one)
    streamer = TextIteratorStreamer(tokenizer, timeout=60)
    thread = threading.Thread(target=by, args=(model, method), kwargs={**one, "streamer": streamer})
    thread.start()
    assert "".join(streamer) == tokenizer.decode(expected[0])
    thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["fast", "guided", "folder"])
def test_an_iterator_ends_where_a_method_refuses(make_generator, tokenizer, name):
    streamer = TextIteratorStreamer(tokenizer, timeout=60)
    options = {"input_ids": PROMPTS[:1], "attention_mask": MASK[:1], "streamer": streamer, "max_new_tokens": 4}
    wrong = {"weight_dtype": "float7"} if name == "fast" else {"num_candidates": 0}
    thread = threading.Thread(target=by, args=(make_generator(), METHODS[name]), kwargs={**options, **wrong})
    thread.start()
    assert list(streamer)
    thread.join()


@pytest.mark.parametrize("name", METHODS)
def test_stop_strings(make_generator, tokenizer, name):
    model, method = make_generator(), METHODS[name]
    plain = {"do_sample": method.get("do_sample", False)}
    whole = by(model, plain)[0]
    stop = tokenizer.decode(next(token for token in whole[5:] if token > 2))
    stopping = {"stop_strings": [stop], "tokenizer": tokenizer}
    expected, found = by(model, plain, **stopping), by(model, method, **stopping)
    assert found.tolist() == expected.tolist() and stop in tokenizer.decode(found[0])
    with pytest.raises(ValueError, match="tokenizer"):
        by(model, method, stop_strings=[stop])


def test_functions_of_others_are_called_as_before(make_generator):
    def other(model, input_ids, logits_processor, stopping_criteria, generation_config, mine=None, **kwargs):
        assert mine == 3 and not kwargs.keys() & {"streamer", "tokenizer", "synced_gpus"}
        return input_ids

    assert by(make_generator(), {"custom_generate": other}, mine=3, tokenizer=3).tolist() == PROMPTS.tolist()
