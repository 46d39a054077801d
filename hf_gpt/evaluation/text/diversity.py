"""How much of a sample is new: distinct n-grams and repeated texts."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from hf_gpt.evaluation.text.ngrams import ngram_ids, sentence_lengths


# Tokens of a span that two texts have in common by more than their language: half of a text, between these.
SHORTEST_SPAN, LONGEST_SPAN = 4, 10


def distinct_ngrams(sentences: Sequence[Sequence[str]], max_order: int = 4) -> list[tuple[int, int]]:
    """Different n-grams and all n-grams of a sample, for each order from 1 to `max_order`.

    Their ratio is distinct-n (https://arxiv.org/abs/1510.03055). It falls as a sample grows, so it compares only
    between samples of equally many tokens.
    """
    return [(size, len(ids)) for _, ids, size in ngram_ids(sentences, max_order)]


def duplicate_rate(texts: Sequence[Hashable]) -> float:
    """Share of texts that repeat an earlier one of the sample."""
    return 1 - len(set(texts)) / len(texts)


def repetition_rate(texts: Sequence[Sequence[Hashable]]) -> float:
    """Share of texts that have half of themselves, in one piece, in common with another text of the sample.

    The piece is at least 4 tokens long, or the whole text if that is shorter, and at most 10. Generators repeat each
    other's passages long before they repeat whole texts, whose number grows with every token that may vary. The rate
    rises with the size of the sample, so it compares only between samples of equally many texts.
    """
    lengths = sentence_lengths(texts)
    spans = np.minimum(lengths, np.clip((lengths + 1) // 2, SHORTEST_SPAN, LONGEST_SPAN))
    repeats = np.zeros(len(texts), bool)
    for order, (owners, ids, size) in enumerate(ngram_ids(texts, int(spans.max(initial=0))), start=1):
        asked = spans[owners] == order
        if asked.any():
            first, last = np.full(size, len(texts)), np.full(size, -1)
            np.minimum.at(first, ids, owners)
            np.maximum.at(last, ids, owners)
            repeats[owners[asked & (first < last)[ids]]] = True
    return float(repeats.mean())


def most_frequent(texts: Sequence[Hashable]) -> tuple[Hashable, int]:
    """The text that occurs most often, the first of several, and how often."""
    return Counter(texts).most_common(1)[0]
