"""N-grams of many sentences at once, as arrays of integers: the counting behind every n-gram metric here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NgramCounts:
    """How often each n-gram of one order occurs in each sentence, one entry for each pair that does occur.

    Attributes:
        order: n.
        sentences: int64 `(pairs,)`, ascending.
        ngrams: int64 `(pairs,)`, from 0 to `size - 1`; the same n-gram has the same number in all sentences.
        counts: int64 `(pairs,)`, at least 1.
        size: How many different n-grams there are in all sentences together.
    """

    order: int
    sentences: np.ndarray
    ngrams: np.ndarray
    counts: np.ndarray
    size: int


def sentence_lengths(sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """Tokens of each sentence, int64 `(sentences,)`."""
    return np.fromiter((len(sentence) for sentence in sentences), np.int64, len(sentences))


def ngram_ids(sentences: Sequence[Sequence[str]], max_order: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """For each order from 1 to `max_order`, every n-gram in the order of the text.

    Yields:
        The sentence of each n-gram and its number, both int64 `(occurrences,)` in the order of the text, and how many
        different n-grams there are. No n-gram reaches over the end of its sentence.
    """
    lengths = sentence_lengths(sentences)
    vocabulary: dict[str, int] = {}
    tokens = np.fromiter(
        (vocabulary.setdefault(token, len(vocabulary)) for sentence in sentences for token in sentence),
        np.int64,
        int(lengths.sum()),
    )
    owners = np.repeat(np.arange(len(sentences)), lengths)
    # Tokens from each position to the end of its sentence, itself included.
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(tokens))
    positions, ids, size = np.arange(len(tokens)), tokens, len(vocabulary)
    for order in range(1, max_order + 1):
        if order > 1:
            inside = left[positions] >= order
            positions = positions[inside]
            # An n-gram is the (n-1)-gram before its last token, and that token.
            found, ids = np.unique(ids[inside] * len(vocabulary) + tokens[positions + order - 1], return_inverse=True)
            size = len(found)
        yield owners[positions], ids, size


def count_ngrams(sentences: Sequence[Sequence[str]], max_order: int) -> Iterator[NgramCounts]:
    """The counts of each order from 1 to `max_order`.

    Raises:
        ValueError: `max_order` is below 1.
    """
    if max_order < 1:
        raise ValueError(f"n-grams have at least one token, so max_order cannot be {max_order}.")
    for order, (owners, ids, size) in enumerate(ngram_ids(sentences, max_order), start=1):
        pairs, counts = np.unique(owners * max(size, 1) + ids, return_counts=True)
        yield NgramCounts(order, pairs // max(size, 1), pairs % max(size, 1), counts, size)
