"""Vocabulary of words for the small models that metrics train."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


PAD, BOS, EOS, UNKNOWN = range(4)


class WordVocabulary:
    """The `size` most frequent words of some texts, after the four special tokens.

    Args:
        sentences: Tokens of each text.
        size: Entries at most, special tokens included.
        min_count: Words that occur less often are unknown.
    """

    def __init__(self, sentences: Iterable[Sequence[str]], size: int = 20_000, min_count: int = 1):
        counts = Counter(token for sentence in sentences for token in sentence)
        # Of equally frequent words the alphabet decides, so that the order of the texts does not.
        ranked = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        self.numbers = {word: number for number, word in enumerate(ranked[: max(size - 4, 0)], start=4)}

    def __len__(self) -> int:
        return 4 + len(self.numbers)

    def encode(self, sentences: Iterable[Sequence[str]], max_length: int) -> list[np.ndarray]:
        """Each text as int64 ids: begin, at most `max_length` words, and an end where no word was cut off."""
        rows = []
        for sentence in sentences:
            ids = [BOS, *(self.numbers.get(token, UNKNOWN) for token in sentence[:max_length])]
            rows.append(np.array(ids + [EOS] * (len(sentence) <= max_length), np.int64))
        return rows

    def unknown_rate(self, sentences: Iterable[Sequence[str]]) -> float:
        """Share of words that are not in the vocabulary."""
        counts = Counter(token for sentence in sentences for token in sentence)
        return sum(n for word, n in counts.items() if word not in self.numbers) / max(sum(counts.values()), 1)
