import math

import numpy as np
import pytest

from hf_gpt.evaluation import load
from hf_gpt.evaluation.text.copying import copied_whole, longest_copied_spans, ngram_overlap
from hf_gpt.evaluation.text.diversity import distinct_ngrams, duplicate_rate, repetition_rate
from hf_gpt.evaluation.text.tokenization import get_tokenizer, tokenize


def grams(sentence, order):
    return [tuple(sentence[n : n + order]) for n in range(len(sentence) - order + 1)]


def random_sentences(count, seed, words=4, longest=15):
    generator = np.random.default_rng(seed)
    return [list(map(str, generator.integers(0, words, generator.integers(0, longest)))) for _ in range(count)]


def test_distinct_by_hand_and_by_sets():
    assert distinct_ngrams([["a", "b", "a"], ["a", "b"]], 3) == [(2, 5), (2, 3), (1, 1)]
    sentences = random_sentences(40, 0)
    every = [[gram for sentence in sentences for gram in grams(sentence, n)] for n in range(1, 5)]
    assert distinct_ngrams(sentences, 4) == [(len(set(found)), len(found)) for found in every]


def test_distinct_metric():
    found = load("distinct_n").compute(predictions=["a b a", "a b"], max_order=4)
    assert found["distinct_1"] == 0.4 and found["distinct_2"] == pytest.approx(2 / 3) and found["unique_3"] == 1
    assert math.isnan(found["distinct_4"]) and found["tokens"] == 5
    with pytest.raises(ValueError, match="max_order must be at least 1"):
        load("distinct_n").compute(predictions=["a"], max_order=0)


def test_duplicates():
    assert duplicate_rate(["a", "b", "a", "a"]) == 0.5
    found = load("duplicates").compute(predictions=["a b", "c", "a  b ", "a b"])
    assert found["duplicate_rate"] == 0.5 and (found["most_frequent"], found["most_frequent_count"]) == ("a b", 3)


def test_repetition_by_hand():
    long = list("abcdefghijklmnopqrstuvwx")
    assert repetition_rate([long, [*"efghijklmn", "1"], ["2"] * 20]) == pytest.approx(2 / 3)
    # Nine tokens are too few for either, and a text does not repeat itself.
    assert repetition_rate([long, [*"efghijklm", *"12345678901"], ["2"] * 20]) == 0
    # Four at least, of a shorter text all.
    assert repetition_rate([list("abcdxy"), list("abcz"), list("zabcdx")]) == pytest.approx(2 / 3)
    assert repetition_rate([list("ab"), list("ab"), list("ac"), []]) == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_repetition_by_trying_all(seed):
    texts = [tuple(text) for text in random_sentences(30, seed)]

    def repeats(number, text):
        span = min(len(text), max(4, min(10, -(-len(text) // 2))))
        pieces = {text[start : start + span] for start in range(len(text) - span + 1)}
        others = [other for position, other in enumerate(texts) if position != number]
        return any(other[i : i + span] in pieces for other in others for i in range(len(other) - span + 1) if span)

    assert repetition_rate(texts) == pytest.approx(sum(repeats(*pair) for pair in enumerate(texts)) / len(texts))


@pytest.mark.parametrize("seed", range(4))
def test_longest_spans_by_trying_all(seed):
    texts, references = random_sentences(15, seed), random_sentences(10, seed + 100)

    def longest(text):
        for length in range(len(text), 0, -1):
            if any(gram in grams(reference, length) for gram in grams(text, length) for reference in references):
                return length
        return 0

    assert longest_copied_spans(texts, references).tolist() == [longest(text) for text in texts]
    known = {gram for reference in references for gram in grams(reference, 4)}
    ours = [gram in known for text in texts for gram in grams(text, 4)]
    assert ngram_overlap(texts, references, 4) == pytest.approx(np.mean(ours))


def test_spans_do_not_run_over_the_end_of_a_reference():
    assert longest_copied_spans([["a", "b", "c"]], [["a", "b"], ["c"]]).tolist() == [2]
    assert longest_copied_spans([["x"], []], [["a"]]).tolist() == [0, 0]


def test_copy_rate():
    train = ["a b c d e", "f g h", "i j"]
    found = load("copy_rate").compute(predictions=["f g h", "z b c d z", "q"], references=train, held_out=["x", "i j"])
    assert found["copy_rate"] == pytest.approx(1 / 3) and found["copy_rate_error"] == pytest.approx(math.sqrt(2 / 27))
    assert found["longest_span"] == 3 and found["mean_longest_span"] == 2
    assert found["mean_longest_share"] == pytest.approx((1 + 3 / 5 + 0) / 3)
    assert found["overlap_4"] == 0 and found["held_out_copy_rate"] == 0.5
    assert copied_whole([["a"], ["b"]], [["b"]]).tolist() == [False, True]


def test_copies_of_leakgan_are_found(read_data):
    train = [" ".join(words) for words in tokenize(read_data("lm/coco_captions/image_coco.txt", 3000), "treebank")]
    known = set(train)
    samples = read_data("detection/texygen_coco_samples/leakgan.txt", 2000)
    found = load("copy_rate").compute(predictions=samples, references=train)
    assert found["copy_rate"] == np.mean([" ".join(text.split()) in known for text in samples])
    assert 0 < found["overlap_4"] < 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("whitespace", ["a", "cat,", "isn't", "it."]),
        ("treebank", ["a", "cat", ",", "is", "n't", "it", "."]),
        ("13a", ["a", "cat", ",", "isn't", "it", "."]),
        ("character", list("a cat, isn't it.")),
    ],
)
def test_tokenizers(name, expected):
    assert tokenize(["a cat, isn't it."], name) == [expected]
    assert get_tokenizer(name)[0] == name


def test_a_tokenizer_of_ones_own():
    def halves(text):
        return [text[:2], text[2:]]

    assert load("distinct_n").compute(predictions=["abab"], max_order=1, tokenizer=halves)["distinct_1"] == 0.5


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("distinct_n", {"predictions": []}, "predictions holds 0 texts"),
        ("duplicates", {"predictions": ["a", 1.5]}, r"predictions\[1\] is 1.5"),
        ("copy_rate", {"predictions": ["a"]}, "references is missing"),
        ("copy_rate", {"predictions": ["a"], "references": ["b"], "held_out": "text"}, "held_out is a single str"),
    ],
)
def test_bad_input_is_explained(name, given, message):
    with pytest.raises(ValueError, match=message):
        load(name).compute(**given)
