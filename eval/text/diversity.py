"""How much of a sample is new: distinct n-grams and repeated texts."""

from collections import Counter
from collections.abc import Hashable, Sequence

from .ngrams import ngram_ids


def distinct_ngrams(sentences: Sequence[Sequence[str]], max_order: int = 4) -> list[tuple[int, int]]:
    """Different n-grams and all n-grams of a sample, for each order from 1 to `max_order`.

    Their ratio is distinct-n (https://arxiv.org/abs/1510.03055). It falls as a sample grows, so it compares only
    between samples of equally many tokens.
    """
    return [(size, len(ids)) for _, ids, size in ngram_ids(sentences, max_order)]


def duplicate_rate(texts: Sequence[Hashable]) -> float:
    """Share of texts that repeat an earlier one of the sample."""
    return 1 - len(set(texts)) / len(texts)


def most_frequent(texts: Sequence[Hashable]) -> tuple[Hashable, int]:
    """The text that occurs most often, the first of several, and how often."""
    return Counter(texts).most_common(1)[0]
