"""Blocks of long documents, and held-out text that is exchangeable with the rest."""

import itertools
import random

import numpy as np
import pytest

from hf_gpt.data.blocks import block_size, cut_into_blocks, near_copies, split_into_blocks
from hf_gpt.data.corpus import read_corpus, split_corpus


PARAGRAPHS = [f"Speaker {n}:\n" + " ".join(f"w{n * 37 % 601}x{m}" for m in range(12)) + "\n" for n in range(600)]
TEXT = "\n".join(PARAGRAPHS)


def pieces(parts, length=48):
    """Stretches of `length` words of each side, shuffled."""
    found = []
    for texts in parts:
        words = [text.split() for text in texts]
        rows = [row[n : n + length] for row in words for n in range(0, len(row) - length + 1, length)]
        random.Random(0).shuffle(rows)
        found.append(rows)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_held_out_text_is_of_the_same_kind_as_the_rest(seed):
    """The last tenth of Tiny Shakespeare is other plays: a classifier tells it from the rest with an AUC of 0.8."""
    from hf_gpt.evaluation.two_sample.classifier_test import classifier_test
    from hf_gpt.evaluation.two_sample.tfidf_classifier import tfidf_scores

    def found(parts):
        training, held_out = pieces(parts)
        return classifier_test(training[: len(held_out)], held_out, tfidf_scores, seed=seed, num_splits=2)

    corpus = read_corpus(["tinyshakespeare"])
    split = found([part["text"] for part in split_corpus(corpus, 0.1, seed)])
    assert split["auc_low"] < 0.5 < split["auc_high"] and abs(split["auc"] - 0.5) < 0.06, split
    text = corpus[0]["text"]
    cut = round(0.9 * len(text))
    assert found([[text[:cut]], [text[cut:]]])["auc"] > 0.7


def test_blocks_come_from_all_over_the_text():
    _, held_out = split_into_blocks([TEXT], 0.1, seed=0)
    places = [TEXT.index(text) / len(TEXT) for text in held_out]
    assert np.histogram(places, bins=10, range=(0, 1))[0].min() >= 3


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.8])
def test_both_sides_together_are_the_text(fraction):
    training, held_out = split_into_blocks([TEXT], fraction, seed=0)
    assert sum(map(len, held_out)) / len(TEXT) == pytest.approx(fraction, rel=0.15)
    runs = sorted(training + held_out, key=TEXT.index)
    assert "".join(runs) == TEXT
    # Neighbours on one side are one text: sides take turns.
    sides = [run in set(held_out) for run in runs]
    assert all(first != second for first, second in itertools.pairwise(sides))
    assert all(run.endswith("\n\n") for run in runs[:-1])


def test_the_split_follows_from_text_and_seed():
    assert split_into_blocks([TEXT], 0.1, 0) == split_into_blocks([TEXT], 0.1, 0)
    assert split_into_blocks([TEXT], 0.1, 0) != split_into_blocks([TEXT], 0.1, 1)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("one line\n" * 400, "\n"),
        ("para\r\n\r\n" + "line\r\n" * 400, "\n"),
        ("word " * 900, " "),
        ("字" * 4000, "字"),
        ("x\r\n" * 2000, "\n"),
    ],
)
def test_blocks_end_where_the_text_allows(text, ends):
    blocks = cut_into_blocks(text, 100)
    assert "".join(blocks) == text and all(50 <= len(block) <= 150 for block in blocks[:-1])
    assert all(block.endswith(ends) for block in blocks[:-1])


def test_no_block_is_blank():
    blocks = cut_into_blocks("\n" * 500 + "words\n" * 50 + " \n" * 300 + "words\n" * 50 + "\n" * 500, 60)
    assert all(block.strip() for block in blocks)


def test_a_passage_that_comes_again_is_on_one_side():
    passage = "\n".join(PARAGRAPHS[:200])
    text = passage + "".join(PARAGRAPHS[200:400]) + "A new beginning.\n" + passage.replace("\n", "\r\n").upper()
    training, held_out = split_into_blocks([text], 0.2, seed=0)
    words = [set(), set()]
    for side, texts in enumerate((training, held_out)):
        for one in texts:
            plain = one.casefold().split()
            words[side] |= {tuple(plain[n : n + 14]) for n in range(len(plain) - 14)}
    # Windows of a paragraph and more; what is left over is at the ends of the two copies.
    assert len(words[0] & words[1]) < 0.1 * len(words[1])


def test_near_copies_are_counted_together():
    first, second, other = PARAGRAPHS[0] + PARAGRAPHS[1], PARAGRAPHS[0] + PARAGRAPHS[2], PARAGRAPHS[3]
    assert near_copies([first, other, second, first.upper().replace("\n", "  ")]) == [0, 1, 0, 0]
    assert near_copies([other, *PARAGRAPHS[4:8]]) == [0, 1, 2, 3, 4]
    assert near_copies(["a" * 5000, "b" * 5000, "a" * 4000]) == [0, 1, 0]
    assert near_copies(["short", "Short ", "other"]) == [0, 0, 2]
    assert near_copies([""]) == [0]


def test_time_is_linear_in_text_that_repeats_itself():
    import time

    seconds = []
    for length in (100_000, 800_000):
        began = time.process_time()
        split_into_blocks(["ab" * (length // 2)], 0.1, 0)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 30 * max(seconds[0], 0.02)


def test_books_too_few_to_hold_one_out_are_split_by_blocks():
    import datasets

    books = ["\n".join(PARAGRAPHS[:300]), "\n".join(PARAGRAPHS[300:])]
    corpus = datasets.Dataset.from_dict({"text": books})
    training, held_out = split_corpus(corpus, 0.1, seed=0)
    for book in books:
        share = sum(len(text) for text in held_out["text"] if text in book) / len(book)
        assert share == pytest.approx(0.1, abs=0.03)
    assert sum(map(len, [*training["text"], *held_out["text"]])) == sum(map(len, books))


def test_copies_of_a_document_in_other_case_or_blanks_are_on_one_side():
    import datasets

    texts = [f"Document {n // 2} of many" if n % 2 else f"document  {n // 2} OF\nmany\n" for n in range(60)]
    training, held_out = split_corpus(datasets.Dataset.from_dict({"text": texts}), 0.2, seed=0)
    numbers = [{text.split()[1] for text in part["text"]} for part in (training, held_out)]
    assert not numbers[0] & numbers[1] and len(held_out) == 12


def test_sizes_of_blocks():
    assert block_size(1_115_394, 0.1) == 435
    assert block_size(10**9, 0.1) == 4096
    assert block_size(1000, 0.1) == 100
    assert block_size(1_115_394, 0.9) == block_size(1_115_394, 0.1)
