"""
BLEU of many sentences against many references, and of sentences against each other, in time linear in their number.

The usual code compares every hypothesis with every reference. What it needs of an n-gram is only its largest count in
any one reference, so one pass over the references is enough. A sentence left out of its own references needs the second
largest count too: where the largest is its own, the second takes its place.
"""

import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np

from hf_gpt.evaluation.text.ngrams import NgramCounts, count_ngrams, sentence_lengths


Smoothing = Literal["method0", "method1", "method2"]
SMOOTHINGS: tuple[str, ...] = ("method0", "method1", "method2")
# NLTK's default for `SmoothingFunction().method1`.
EPSILON = 0.1


def ngram_bleu(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    orders: Sequence[int] = (2, 3, 4, 5),
    smoothing: Smoothing = "method1",
    epsilon: float = EPSILON,
) -> np.ndarray:
    """Sentence BLEU (https://aclanthology.org/P02-1040) of each hypothesis against all references.

    Equal to NLTK's `sentence_bleu(references, hypothesis, uniform weights, smoothing)` of each hypothesis, with clipped
    counts over all references and the brevity penalty of the closest length (of two, the shorter).

    Args:
        hypotheses: Tokens of each hypothesis.
        references: Tokens of each reference; all of them count for every hypothesis.
        orders: BLEU-n for each of these n, with equal weights on 1 to n.
        smoothing: Of precisions (https://aclanthology.org/W14-3346), by NLTK's names: `"method1"` puts `epsilon` in
            place of no match, `"method2"` adds one to both parts above order 1, `"method0"` takes the smallest float
            for a zero, so that the score is almost zero.
        epsilon: As above.

    Returns:
        float64 array of shape `(hypotheses, orders)`, from 0 to 1.

    Raises:
        ValueError: there is no hypothesis or reference, or an option is unknown.
    """
    if not len(references):
        raise ValueError("there are no references. BLEU needs at least one.")
    return _scores(hypotheses, references, orders, smoothing, epsilon)


def self_bleu(
    sentences: Sequence[Sequence[str]],
    orders: Sequence[int] = (2, 3, 4, 5),
    smoothing: Smoothing = "method1",
    epsilon: float = EPSILON,
) -> np.ndarray:
    """BLEU of each sentence against all the others (https://arxiv.org/abs/1802.01886), itself left out.

    Arguments and result are those of `ngram_bleu`. A sentence that occurs twice is still a reference of its twin.

    Raises:
        ValueError: there are fewer than two sentences, or an option is unknown.
    """
    if len(sentences) < 2:
        raise ValueError(f"self-BLEU compares sentences with each other and needs at least 2; got {len(sentences)}.")
    return _scores(sentences, None, orders, smoothing, epsilon)


def _scores(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]] | None,
    orders: Sequence[int],
    smoothing: str,
    epsilon: float,
) -> np.ndarray:
    """The scores; without references each sentence has all the others for references."""
    _check_options(hypotheses, orders, smoothing, epsilon)
    count = len(hypotheses)
    lengths = sentence_lengths(hypotheses)
    reference_lengths = lengths if references is None else sentence_lengths(references)
    everything = hypotheses if references is None else [*hypotheses, *references]
    logs = np.zeros((count, max(orders)))
    for counts in count_ngrams(everything, max(orders)):
        matches = _matches(counts, count, leave_one_out=references is None)
        if counts.order == 1:
            unmatched = matches == 0
        totals = np.maximum(lengths - counts.order + 1, 1)
        logs[:, counts.order - 1] = np.log(_precisions(matches, totals, counts.order, smoothing, epsilon))
    closest = _closest_lengths(lengths, reference_lengths, leave_one_out=references is None)
    penalties = np.where(lengths > closest, 0.0, 1 - closest / np.maximum(lengths, 1))
    columns = [np.exp(penalties + logs[:, :order].sum(1) / order) for order in orders]
    return np.where(unmatched[:, None], 0.0, np.stack(columns, axis=1))


def _matches(counts: NgramCounts, hypotheses: int, leave_one_out: bool) -> np.ndarray:
    """Clipped matches of each hypothesis: the first `hypotheses` sentences, the others being the references."""
    start = 0 if leave_one_out else int(np.searchsorted(counts.sentences, hypotheses))
    order = start + np.lexsort((-counts.counts[start:], counts.ngrams[start:]))
    ngrams = counts.ngrams[order]
    first = np.flatnonzero(np.diff(ngrams, prepend=-1))
    largest, second, holder = np.zeros((3, counts.size), np.int64)
    largest[ngrams[first]] = counts.counts[order[first]]
    holder[ngrams[first]] = counts.sentences[order[first]]
    shared = first[np.diff(np.append(first, len(ngrams))) > 1]
    second[ngrams[shared]] = counts.counts[order[shared + 1]]

    stop = int(np.searchsorted(counts.sentences, hypotheses))
    own, sentences = counts.ngrams[:stop], counts.sentences[:stop]
    limits = largest[own]
    if leave_one_out:
        limits = np.where(holder[own] == sentences, second[own], limits)
    return np.bincount(sentences, np.minimum(counts.counts[:stop], limits), hypotheses)


def _precisions(matches: np.ndarray, totals: np.ndarray, order: int, smoothing: str, epsilon: float) -> np.ndarray:
    if smoothing == "method2" and order > 1:
        return (matches + 1) / (totals + 1)
    nothing = epsilon / totals if smoothing == "method1" else sys.float_info.min
    return np.where(matches > 0, matches / totals, nothing)


def _closest_lengths(lengths: np.ndarray, references: np.ndarray, leave_one_out: bool) -> np.ndarray:
    """The reference length closest to each of `lengths`, the shorter of two that are equally close."""
    known, frequencies = np.unique(references, return_counts=True)
    chosen: dict[int, int] = {}
    for length in np.unique(lengths).tolist():
        free = known
        if leave_one_out:
            # Its own length does not count, unless another sentence has it too.
            free = known[(known != length) | (frequencies > 1)]
        chosen[length] = int(free[np.argmin(np.abs(free - length))])
    return np.array([chosen[length] for length in lengths.tolist()], np.int64)


def _check_options(hypotheses: Sequence[Sequence[str]], orders: Sequence[int], smoothing: str, epsilon: float) -> None:
    if not len(hypotheses):
        raise ValueError("there are no hypotheses. BLEU needs at least one.")
    if not len(orders) or any(not isinstance(order, int) or order < 1 for order in orders):
        raise ValueError(f"orders must be whole numbers of at least 1, such as (2, 3, 4, 5); got {orders!r}.")
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"smoothing must be one of {', '.join(SMOOTHINGS)}; got {smoothing!r}.")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}.")
