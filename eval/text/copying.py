"""What a sample has taken over word for word: whole texts, spans and n-grams that are in other texts."""

from collections.abc import Sequence

import numpy as np

from .ngrams import ngram_ids, sentence_lengths


def copied_whole(texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Whether each text is one of the references, bool `(texts,)`."""
    known = {tuple(reference) for reference in references}
    return np.array([tuple(text) in known for text in texts])


def longest_copied_spans(texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Tokens of the longest span of each text that stands somewhere in one reference, int64 `(texts,)`.

    Grows all common spans by one token at a time and keeps only places whose span is on both sides, so the work is
    proportional to all tokens plus those inside common spans.
    """
    sentences = [*texts, *references]
    lengths = sentence_lengths(sentences)
    owners, tokens, vocabulary = next(iter(ngram_ids(sentences, 1)))
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(tokens))
    longest = np.zeros(len(texts), np.int64)
    places, ids, size, length = np.arange(len(tokens)), tokens, vocabulary, 1
    while len(places):
        ours = owners[places] < len(texts)
        in_texts, in_references = np.zeros((2, size), bool)
        in_texts[ids[ours]] = True
        in_references[ids[~ours]] = True
        common = (in_texts & in_references)[ids]
        places, ids = places[common], ids[common]
        longest[owners[places[owners[places] < len(texts)]]] = length
        goes_on = left[places] > length
        places, ids = places[goes_on], ids[goes_on]
        found, ids = np.unique(ids * vocabulary + tokens[places + length], return_inverse=True)
        size, length = len(found), length + 1
    return longest


def ngram_overlap(texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]], order: int = 4) -> float:
    """Share of the n-grams of the texts, each occurrence counted, that occur in a reference; NaN if there are none."""
    *_, (owners, ids, size) = ngram_ids([*texts, *references], order)
    known = np.zeros(max(size, 1), bool)
    known[ids[owners >= len(texts)]] = True
    ours = ids[owners < len(texts)]
    return float(known[ours].mean()) if len(ours) else float("nan")
