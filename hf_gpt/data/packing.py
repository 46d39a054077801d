"""Packing of tokenised documents into rows of one length.

A row holds segments of documents. `position_ids` restart at 0 with every segment, by which the attention of
Transformers keeps segments apart when no attention mask and no cache is given.

A document that spans rows is continued with its last token repeated as context, so every token of every document but
its first is predicted exactly once, and none from a token of another document.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np


IGNORE_INDEX = -100


class Segment(NamedTuple):
    """Tokens `start:end` of document `document`; the token at `start` is context, not predicted."""

    document: int
    start: int
    end: int


def plan_sequential(lengths: Sequence[int], max_length: int) -> list[list[Segment]]:
    """Rows filled to the brim in the documents' order; only the last one may stay partly empty.

    Args:
        lengths: Number of tokens of each document; one of a single token has nothing to predict and is left out.
        max_length: Length of a row, at least 2.
    """
    rows: list[list[Segment]] = []
    space = 0
    for document, length in enumerate(lengths):
        start = 0
        while start < length - 1:
            if space < 2:
                rows.append([])
                space = max_length
            end = min(length, start + space)
            rows[-1].append(Segment(document, start, end))
            space -= end - start
            start = end - 1
    return rows


def plan_best_fit(lengths: Sequence[int], max_length: int) -> list[list[Segment]]:
    """Rows in which a document of up to `max_length` tokens is never cut; a longer one is cut into as few as can be.

    Segments go, longest first, where they leave the least space (best-fit decreasing, as for packing in
    https://arxiv.org/abs/2404.10830). Arguments as for `plan_sequential`.
    """
    pieces = []
    for document, length in enumerate(lengths):
        for start in range(0, length - 1, max_length - 1):
            pieces.append(Segment(document, start, min(length, start + max_length)))
    pieces.sort(key=lambda piece: piece.start - piece.end)

    rows: list[list[Segment]] = []
    by_space: list[list[int]] = [[] for _ in range(max_length + 1)]
    # Bit s is set while a row with s free tokens exists, which finds the tightest fit in one operation.
    occupied = 0
    for piece in pieces:
        size = piece.end - piece.start
        candidates = occupied >> size
        if candidates:
            space = size + (candidates & -candidates).bit_length() - 1
            row = by_space[space].pop()
            if not by_space[space]:
                occupied &= ~(1 << space)
        else:
            row, space = len(rows), max_length
            rows.append([])
        rows[row].append(piece)
        left = space - size
        if left >= 2:
            by_space[left].append(row)
            occupied |= 1 << left
    return rows


def pack(
    documents: Sequence[Sequence[int]],
    max_length: int,
    *,
    pad_token_id: int,
    strategy: Literal["best_fit", "sequential"] = "best_fit",
) -> dict[str, np.ndarray]:
    """Packs documents into rows.

    Args:
        documents: Token ids of each document, with its begin and end tokens.
        max_length: Length of a row.
        pad_token_id: Fills what stays free at the end of a row; it is not predicted.
        strategy: `plan_best_fit` or `plan_sequential`.

    Returns:
        `input_ids`, `position_ids` and `labels`, each int32 of shape (rows, max_length). Labels are the tokens
        themselves (models shift them), -100 at the first token of a segment and at padding.

    Raises:
        ValueError: `max_length` is below 2.
    """
    if max_length < 2:
        raise ValueError(f"max_length={max_length} must be at least 2: one token of context and one to predict.")
    plan = {"best_fit": plan_best_fit, "sequential": plan_sequential}[strategy]
    rows = plan([len(document) for document in documents], max_length)
    input_ids = np.full((len(rows), max_length), pad_token_id, dtype=np.int32)
    labels = np.full((len(rows), max_length), IGNORE_INDEX, dtype=np.int32)
    position_ids = np.zeros((len(rows), max_length), dtype=np.int32)
    arrays = [np.asarray(document, dtype=np.int32) for document in documents]
    for row, segments in enumerate(rows):
        offset = 0
        for document, start, end in segments:
            stop = offset + end - start
            input_ids[row, offset:stop] = arrays[document][start:end]
            labels[row, offset + 1 : stop] = arrays[document][start + 1 : end]
            position_ids[row, offset:stop] = np.arange(end - start)
            offset = stop
        # Padding counts on from the last segment: no token looks ahead, so it needs no mask of its own.
        if offset < max_length:
            position_ids[row, offset:] = np.arange(max_length - offset) + position_ids[row, offset - 1] + 1
    return {"input_ids": input_ids, "position_ids": position_ids, "labels": labels}


def empty_rows(count: int, max_length: int, pad_token_id: int) -> dict[str, np.ndarray]:
    """`count` rows without a target, in the form of `pack`: they complete a batch and add nothing to a loss."""
    return {
        "input_ids": np.full((count, max_length), pad_token_id, dtype=np.int32),
        "position_ids": np.tile(np.arange(max_length, dtype=np.int32), (count, 1)),
        "labels": np.full((count, max_length), IGNORE_INDEX, dtype=np.int32),
    }
