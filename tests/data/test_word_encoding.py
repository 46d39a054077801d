"""Texts cut into words, each encoded once, have the ids of the texts as they are."""

import copy
import gc
import random

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hf_gpt.data import word_encoding
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.data.word_encoding import encode_texts, knows_where_to_cut


# Every kind of white space, of letter, mark and digit that the pattern or Python tells apart, and what spells tokens.
PIECES = [
    *"abzé漢字 \n\r\t\u00a0\u2003\u3000\u180e\u200b\u0085\x1c\x1f\x0b\x0c\u2028",
    *"''sdtml.,!?-_/0123½²Ⅷ\u0301\u093e🙂👍🏽\u202f\ufeff",
    *(" ", " ", " ", "\n", "'s", "'LL", " 12", "  ", "\r\n", "<|endoftext|>", " x\n"),
]


def texts(seed):
    generator = random.Random(seed)
    drawn = ["".join(generator.choices(PIECES, k=generator.randint(0, 40))) for _ in range(1500)]
    characters = [*map(chr, range(0x20, 0x3000)), *" " * 3000, *map(chr, range(0x20, 0x7F))]
    return drawn + ["".join(generator.choices(characters, k=30)) for _ in range(500)]


def plainly(given, tokenizer):
    return tokenizer(given, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def encoded(given, tokenizer, **options):
    found = encode_texts(given, tokenizer, **options)
    assert all(ids.dtype == np.int32 for ids in found)
    return [ids.tolist() for ids in found]


@pytest.mark.parametrize("together", [3, 1000])
def test_ids_are_those_of_the_whole_texts(together, tokenizer, corpus_text, monkeypatch):
    monkeypatch.setattr(word_encoding, "_PARTS_TOGETHER", together)
    monkeypatch.setattr(word_encoding, "_CHARACTERS_TOGETHER", 100 * together)
    assert knows_where_to_cut(tokenizer)
    long = "antidisestablishmentarianism" * 200
    for given in ([corpus_text, corpus_text[100:], ""], texts(together), ["  "], [f"a {long}, {long}1234567890x"]):
        assert encoded(given, tokenizer) == plainly(given, tokenizer)
    assert encoded([], tokenizer) == []


def test_blank_lines_that_hold_spaces_join_as_they_do_in_the_whole_text():
    given = [" \n" * 100, "a\n \n \n  b", "\n \n", "x \n \n\n y", " \n \t\n z\n"]
    joined = train_tokenizer([text for text in given for _ in range(5)], 300)
    assert encoded(given, joined) == plainly(given, joined)
    assert len(plainly([" \n \n"], joined)[0]) == 1


def test_texts_stand_between_the_tokens_around_them(tokenizer):
    given = ["a b", "", "c"]
    expected = [[0, 1, *ids, 2] for ids in plainly(given, tokenizer)]
    assert encoded(given, tokenizer, around=([0, 1], [2])) == expected
    assert encoded([], tokenizer, around=([0, 1], [2])) == []


def test_control_characters_that_serve_as_marks_may_stand_in_texts(tokenizer, monkeypatch):
    controls = [*map(chr, range(32)), "\x7f"]
    asked = []
    original = word_encoding._encode_alone
    monkeypatch.setattr(word_encoding, "_encode_alone", lambda *given: asked.append(given) or original(*given))
    for first in (0, 5, 20):
        some = [" ".join(f"a{x} {x}b\n{x}" for x in controls[first:]) + " "] * 2
        assert encoded(some, tokenizer) == plainly(some, tokenizer)
    # Where too few are left.
    assert len(asked) == 1


def test_special_tokens_spelled_out_stay_text(tokenizer, corpus_text):
    other = train_tokenizer([corpus_text], 300)
    # Its letters are cut at no place.
    other.add_special_tokens({"additional_special_tokens": ["end"]})
    for one in (tokenizer, other):
        given = ["a<|endoftext|>b <|pad|>", "the end, endless", "<|endoftext|>"]
        assert knows_where_to_cut(one) and encoded(given, one) == plainly(given, one)


def test_parts_are_encoded_once(tokenizer, monkeypatch):
    calls = []
    original = word_encoding._encode_parts
    monkeypatch.setattr(
        word_encoding, "_encode_parts", lambda given, *a: calls.append(list(given)) or original(given, *a)
    )
    tokenizer = copy.deepcopy(tokenizer)
    found = encoded(["a word, and a word"] * 50, tokenizer)
    assert found[0] == plainly(["a word, and a word"], tokenizer)[0] and found == found[:1] * 50
    encode_texts(["a new word and"], tokenizer)
    assert calls == [["a", " word", ",", " and", " a"], [" new"]]


def test_known_parts_are_bounded(tokenizer, monkeypatch):
    monkeypatch.setattr(word_encoding, "_MOST_KNOWN", 5)
    tokenizer = copy.deepcopy(tokenizer)
    for number in range(20):
        given = [f"word{number} and more, {'x' * number}"]
        assert encoded(given, tokenizer) == plainly(given, tokenizer)
        assert len(word_encoding._known[tokenizer][1]._numbers) <= 5 + 6
    del tokenizer
    gc.collect()
    assert all(known.tokenizer() is not None for _, known in word_encoding._known.values())


def test_other_tokenizers_are_asked_for_the_whole_texts(tokenizer, corpus_text):
    added = train_tokenizer([corpus_text], 300)
    added.add_tokens(["of the"])
    assert not knows_where_to_cut(added)
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.train_from_iterator([corpus_text], trainers.BpeTrainer(vocab_size=300))
    other = PreTrainedTokenizerFast(tokenizer_object=model)
    assert not knows_where_to_cut(other)
    for one in (added, other):
        given = [*texts(0)[:200], "one of the two"]
        assert encoded(given, one) == plainly(given, one)


def test_what_is_known_of_words_ends_with_the_tokenizers_model(tokenizer):
    changed = copy.deepcopy(tokenizer)
    given = ["the cat sat on the mat", "the cat"]
    assert encoded(given, changed) == plainly(given, changed)
    # Without merges every character is a token of its own.
    backend = changed.backend_tokenizer
    backend.model = models.BPE(vocab=changed.get_vocab(), merges=[])
    assert encoded(given, changed) == plainly(given, changed) != plainly(given, tokenizer)
    backend.model = copy.deepcopy(tokenizer).backend_tokenizer.model
    backend.model.dropout = 0.5
    assert not knows_where_to_cut(changed)
