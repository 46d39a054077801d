from itertools import pairwise

import numpy as np
import pytest

from hf_gpt.data.packing import IGNORE_INDEX, empty_rows, pack, plan_best_fit


PAD = 1
STRATEGIES = ["best_fit", "sequential"]


def documents_of(lengths, seed=0):
    """Documents of random tokens that never equal the padding token."""
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 1000, length).tolist() for length in lengths]


def segments(packed):
    """Each segment of the rows as (tokens, labels), padding left out."""
    for ids, positions, labels in zip(packed["input_ids"], packed["position_ids"], packed["labels"], strict=True):
        starts = [*np.flatnonzero(positions == 0), len(ids)]
        for start, end in pairwise(starts):
            kept = ids[start:end] != PAD
            yield ids[start:end][kept].tolist(), labels[start:end][kept].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("lengths", [[5], [2, 2, 2], [9, 3, 30, 2, 17, 8, 8, 8], [100], list(range(2, 40))])
@pytest.mark.parametrize("max_length", [2, 3, 8, 64])
def test_every_token_but_the_first_is_predicted_once(strategy, lengths, max_length):
    documents = documents_of(lengths)
    packed = pack(documents, max_length, pad_token_id=PAD, strategy=strategy)
    predicted = sorted(packed["labels"][packed["labels"] != IGNORE_INDEX].tolist())
    assert predicted == sorted(token for document in documents for token in document[1:])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_segments_rebuild_the_documents(strategy):
    documents = documents_of([9, 3, 30, 2, 17, 8, 8, 8, 200])
    packed = pack(documents, 16, pad_token_id=PAD, strategy=strategy)
    pieces = list(segments(packed))
    assert all(labels == [IGNORE_INDEX, *tokens[1:]] for tokens, labels in pieces)

    rebuilt = []
    for document in documents:
        text = document[:1]
        while len(text) < len(document):
            step = next(
                p for p, _ in pieces if p[0] == text[-1] and p[1:] == document[len(text) : len(text) + len(p) - 1]
            )
            text += step[1:]
        rebuilt.append(text)
    assert rebuilt == documents


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_have_one_shape_and_type(strategy):
    packed = pack(documents_of([9, 3, 30, 2]), 8, pad_token_id=PAD, strategy=strategy)
    assert {array.shape[1] for array in packed.values()} == {8}
    assert {array.dtype for array in packed.values()} == {np.dtype(np.int32)}
    assert packed["position_ids"].max() < 8
    assert (packed["labels"][:, 0] == IGNORE_INDEX).all()


def test_padding_is_no_target_and_begins_no_document():
    packed = pack([[5, 6, 7]], 6, pad_token_id=PAD)
    assert packed["input_ids"].tolist() == [[5, 6, 7, PAD, PAD, PAD]]
    assert packed["labels"].tolist() == [[-100, 6, 7, -100, -100, -100]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_an_end_token_that_equals_the_padding_is_still_predicted():
    packed = pack([[PAD, 6, PAD]], 5, pad_token_id=PAD)
    assert packed["labels"].tolist() == [[-100, 6, PAD, -100, -100]]


def test_best_fit_keeps_documents_whole():
    lengths = [7, 5, 3, 8, 2, 6, 4, 8]
    rows = plan_best_fit(lengths, 8)
    assert sorted(segment.document for row in rows for segment in row) == list(range(len(lengths)))
    assert len(rows) == 6  # 43 tokens need 6 rows of 8


def test_sequential_leaves_no_gap_but_in_the_last_row():
    packed = pack(documents_of([9, 3, 30, 3, 17, 50]), 16, pad_token_id=PAD, strategy="sequential")
    full = packed["input_ids"][:-1]
    # A single free place cannot hold a context token and a target.
    assert (full[:, :-1] != PAD).all()


def test_documents_without_a_target_are_left_out():
    assert pack([[5], [], [6]], 4, pad_token_id=PAD)["input_ids"].shape == (0, 4)


def test_row_of_one_token_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        pack([[1, 2]], 1, pad_token_id=PAD)


def test_empty_rows_have_no_target():
    rows = empty_rows(2, 4, PAD)
    assert (rows["labels"] == IGNORE_INDEX).all()
    assert rows["position_ids"].tolist() == [[0, 1, 2, 3]] * 2


def test_best_fit_takes_the_row_that_it_fills_most():
    rows = plan_best_fit([7, 6, 3], 10)
    assert [[segment.document for segment in row] for row in rows] == [[0, 2], [1]]
    assert [[segment.document for segment in row] for row in plan_best_fit([6, 7, 4], 10)] == [[1], [0, 2]]
