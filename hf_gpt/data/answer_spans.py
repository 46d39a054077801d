"""Answers that stand in a passage: windows that a model reads, and the best span of each passage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.special_tokens import begin_and_end, tokenize
from hf_gpt.errors import ConfigError


@dataclass(frozen=True)
class Passage:
    """A question and its passage as tokens.

    Attributes:
        question_cut: Tokens of the question that were cut off.
        input_ids: Tokens of the whole passage.
        offsets: First and past-the-last character of each of them.
        windows: First and past-the-last token of each window.
        rows: A row of each window: `input_ids` (question, window and special tokens), `prefix` (position of the
            window's first token in it) and `offsets` (those of the window's tokens).
    """

    question_cut: int
    input_ids: Sequence[int]
    offsets: Sequence[Sequence[int]]
    windows: Sequence[tuple[int, int]]
    rows: Sequence[Mapping[str, Any]]


def read_passages(
    questions: Sequence[str],
    contexts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    doc_stride: int,
) -> list[Passage]:
    """Questions and passages in windows of at most `max_length` tokens that share `doc_stride` with their neighbours.

    A row is question, end token, window, end token. The last of these stands for "no answer here", because a causal
    model has read all by then.

    Raises:
        ConfigError: the tokenizer is slow or has no end token, or windows of this length cannot move on.
    """
    begin, end = begin_and_end(tokenizer)
    if not tokenizer.is_fast:
        raise ConfigError("question_answering needs a fast tokenizer, one with tokenizer.json. Choose another.")
    asked = tokenize(tokenizer, questions)["input_ids"]
    read = tokenize(tokenizer, contexts, return_offsets_mapping=True)
    passages = []
    for whole, ids, offsets in zip(asked, read["input_ids"], read["offset_mapping"], strict=True):
        question = whole[: max_length // 2]
        windows = _windows(len(ids), max_length - len(question) - 3, doc_stride)
        rows = [
            {
                "input_ids": [begin, *question, end, *ids[first:last], end],
                "prefix": len(question) + 2,
                "offsets": [list(offset) for offset in offsets[first:last]],
            }
            for first, last in windows
        ]
        passages.append(Passage(len(whole) - len(question), ids, offsets, windows, rows))
    return passages


def best_answers(
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    rows: Sequence[Mapping[str, Any]],
    contexts: Sequence[str],
    max_answer_length: int,
) -> list[str]:
    """The likeliest span of each passage over its windows, empty where "no answer" is likelier.

    Args:
        start_logits, end_logits: Of each row, `(num_tokens,)` or padded at the right.
        rows: Rows of `read_passages`, each with the number of its passage under `"example"`.
        contexts: The passages.
        max_answer_length: Most tokens of an answer.
    """
    best = [(-np.inf, "")] * len(contexts)
    nothing = [np.inf] * len(contexts)
    for row, starts, ends in zip(rows, start_logits, end_logits, strict=True):
        index, prefix, offsets = row["example"], row["prefix"], row["offsets"]
        count = len(offsets)
        null = prefix + count
        nothing[index] = min(nothing[index], starts[null] + ends[null])
        if count == 0:
            continue
        pairs = starts[prefix:null, None] + ends[None, prefix:null]
        # An answer ends at or after its start, and not too far from it.
        every = np.ones((count, count), bool)
        pairs = np.where(np.triu(every) & ~np.triu(every, max_answer_length), pairs, -np.inf)
        first, last = np.unravel_index(pairs.argmax(), pairs.shape)
        text = contexts[index][offsets[first][0] : offsets[last][1]].strip()
        best[index] = max(best[index], (float(pairs[first, last]), text), key=lambda item: item[0])
    return ["" if null >= score else text for (score, text), null in zip(best, nothing, strict=True)]


def _windows(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """First and past-the-last token of windows of `room` tokens that share `stride` with their neighbours."""
    if room <= stride:
        raise ConfigError(
            f"--doc_stride {stride} leaves no room to move on in windows of {room} tokens. Use a smaller one, or a "
            "greater --max_length."
        )
    windows = [(0, min(room, length))]
    while windows[-1][1] < length:
        first = windows[-1][1] - stride
        windows.append((first, min(first + room, length)))
    return windows
