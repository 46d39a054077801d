"""Texts cut into words, each encoded once, have the ids of the texts as they are."""

import random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hf_gpt.training import word_encoding
from hf_gpt.training.tokenizer import train_tokenizer
from hf_gpt.training.word_encoding import encode_texts, knows_where_to_cut


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


@pytest.mark.parametrize("together", [3, 2000])
def test_ids_are_those_of_the_whole_texts(together, tokenizer, corpus_text, monkeypatch):
    monkeypatch.setattr(word_encoding, "_PARTS_TOGETHER", together)
    assert knows_where_to_cut(tokenizer)
    for given in ([corpus_text, corpus_text[100:], ""], texts(together), ["  "]):
        assert encode_texts(given, tokenizer) == plainly(given, tokenizer)
    assert encode_texts([], tokenizer) == []


def test_words_are_encoded_once(tokenizer, monkeypatch):
    calls = []
    original = word_encoding._encode
    monkeypatch.setattr(
        word_encoding, "_encode", lambda given, *a, **k: calls.append(given) or original(given, *a, **k)
    )
    found = encode_texts(["a word and a word"] * 50, tokenizer)
    assert found[0] == plainly(["a word and a word"], tokenizer)[0] and found == found[:1] * 50
    assert calls == [("a word and a",)]


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
        assert encode_texts(given, one) == plainly(given, one)
