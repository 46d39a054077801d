import random
import time

import numpy as np
import pytest

from hf_gpt.evaluation.text import copying
from hf_gpt.evaluation.text.copying import longest_copied_spans
from hf_gpt.evaluation.text.suffix_automaton import SuffixAutomaton


def slow(text, references):
    return max(
        (
            length
            for reference in references
            for i in range(len(text))
            for j in range(len(reference))
            for length in range(1, min(len(text) - i, len(reference) - j) + 1)
            if text[i : i + length] == reference[j : j + length]
        ),
        default=0,
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_same_as_comparing_every_span(seed, monkeypatch):
    monkeypatch.setattr(copying, "_GROWN", seed % 4)
    sample = random.Random(seed)
    sides = [[sample.choices("abc"[: 1 + seed % 3], k=sample.randrange(12)) for _ in range(4)] for _ in range(2)]
    expected = [slow(text, sides[1]) for text in sides[0]]
    assert longest_copied_spans(*sides).tolist() == expected
    automaton = SuffixAutomaton(sides[1])
    assert [automaton.longest_span(text) for text in sides[0]] == expected


def test_whole_copies_of_long_texts_take_seconds():
    tokens = np.random.default_rng(0).integers(0, 50, 60_000).tolist()
    begin = time.perf_counter()
    assert longest_copied_spans([tokens[5:50_000], tokens[1:9]], [tokens]).tolist() == [49_995, 8]
    assert time.perf_counter() - begin < 20
