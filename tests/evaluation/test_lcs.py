import random
import time

import pytest
from rouge_score import rouge_scorer

from hf_gpt.evaluation import compute
from hf_gpt.evaluation.text.lcs import lcs_length, lcs_positions


@pytest.mark.parametrize("seed", range(40))
def test_the_same_as_the_table_of_the_package(seed):
    sample = random.Random(seed)
    first, second = (sample.choices("abcd"[: 1 + seed % 4], k=sample.randrange(30)) for _ in range(2))
    table = rouge_scorer._lcs_table(first, second)
    assert lcs_length(first, second) == table[-1][-1]
    assert lcs_positions(first, second) == rouge_scorer._backtrack_norec(table, first, second)


@pytest.mark.parametrize("seed", range(10))
def test_rouge_of_many_lines_is_that_of_the_package(seed):
    sample = random.Random(seed)
    texts = ["\n".join(" ".join(sample.choices("abcde", k=sample.randrange(9))) for _ in range(4)) for _ in range(3)]
    types = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    theirs = rouge_scorer.RougeScorer(types, use_stemmer=True).score_multi(texts[1:], texts[0])
    expected = {name: 100 * score.fmeasure for name, score in theirs.items()}
    assert compute("rouge", [texts[0]], [texts[1:]]) == pytest.approx(expected)


def test_long_texts_take_seconds():
    sample = random.Random(0)
    texts = [" ".join(sample.choices(["one", "two", "three", "four", "five"], k=6000)) for _ in range(2)]
    begin = time.perf_counter()
    assert 40 < compute("rouge", texts[:1], [texts[1:]])["rougeL"] < 100
    # The table of 36 million entries alone took longer.
    assert time.perf_counter() - begin < 15
