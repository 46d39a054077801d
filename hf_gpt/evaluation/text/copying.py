"""What a sample has copied from other texts: whole texts, spans and n-grams."""

from collections.abc import Sequence

import numpy as np

from hf_gpt.evaluation.text.ngrams import ngram_ids, sentence_lengths
from hf_gpt.evaluation.text.suffix_automaton import SuffixAutomaton


# Tokens up to which common spans are grown one by one.
_GROWN = 64


def copied_whole(texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Whether each text is one of the references, bool `(texts,)`."""
    known = {tuple(reference) for reference in references}
    return np.array([tuple(text) in known for text in texts])


def longest_copied_spans(texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Tokens of the longest span of each text that stands somewhere in one reference, int64 `(texts,)`.

    Grows all common spans by one token at a time and keeps only positions whose span is on both sides. Those that are
    still there at `_GROWN` tokens are finished by a suffix automaton, so that whole copies of long texts take time in
    proportion to their length.
    """
    sentences = [*texts, *references]
    lengths = sentence_lengths(sentences)
    owners, tokens, vocabulary = next(iter(ngram_ids(sentences, 1)))
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(tokens))
    longest = np.zeros(len(texts), np.int64)
    positions, ids, size, length = np.arange(len(tokens)), tokens, vocabulary, 1
    while len(positions):
        ours = owners[positions] < len(texts)
        in_texts, in_references = np.zeros((2, size), bool)
        in_texts[ids[ours]] = True
        in_references[ids[~ours]] = True
        common = (in_texts & in_references)[ids]
        positions, ids = positions[common], ids[common]
        longest[owners[positions[owners[positions] < len(texts)]]] = length
        if length >= _GROWN:
            runs, starts = _runs(positions, owners, tokens, length)
            known = [run for run, start in zip(runs, starts, strict=True) if owners[start] >= len(texts)]
            automaton = SuffixAutomaton(known)
            for run, start in zip(runs, starts, strict=True):
                if owners[start] < len(texts):
                    longest[owners[start]] = max(longest[owners[start]], automaton.longest_span(run))
            break
        goes_on = left[positions] > length
        positions, ids = positions[goes_on], ids[goes_on]
        found, ids = np.unique(ids * vocabulary + tokens[positions + length], return_inverse=True)
        size, length = len(found), length + 1
    return longest


def _runs(
    positions: np.ndarray, owners: np.ndarray, tokens: np.ndarray, length: int
) -> tuple[list[list[int]], list[int]]:
    """The tokens that spans of `length` at these positions cover, joined where they overlap in one text, and the start
    of each such run.
    """
    positions = np.sort(positions)
    begins = np.flatnonzero(np.diff(positions, prepend=-2 * length - 2) > length)
    begins = np.union1d(begins, np.flatnonzero(np.diff(owners[positions], prepend=-1)))
    runs = np.split(positions, begins[1:])
    return [tokens[run[0] : run[-1] + length].tolist() for run in runs], [int(run[0]) for run in runs]


def ngram_overlap(texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]], order: int = 4) -> float:
    """Share of the n-grams of the texts, each occurrence counted, that occur in a reference; NaN if there are none."""
    *_, (owners, ids, size) = ngram_ids([*texts, *references], order)
    known = np.zeros(max(size, 1), bool)
    known[ids[owners >= len(texts)]] = True
    ours = ids[owners < len(texts)]
    return float(known[ours].mean()) if len(ours) else float("nan")
