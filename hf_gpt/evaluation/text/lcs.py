"""Longest common subsequences, as ROUGE-L and ROUGE-Lsum count them, many tokens at a time.

A row of the usual table is one whole number, in which a bit is 0 where the length grows (bit-parallel dynamic
programming, https://doi.org/10.1016/S0020-0190(00)00214-X). Long texts take seconds instead of minutes.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence


Tokens = Sequence[Hashable]


def lcs_length(first: Tokens, second: Tokens) -> int:
    """Tokens of a longest common subsequence."""
    row = (1 << len(second)) - 1
    for row in _rows(first, second):  # noqa: B007 - the last one counts
        pass
    return len(second) - row.bit_count()


def lcs_positions(first: Tokens, second: Tokens) -> list[int]:
    """Positions in `first` of a longest common subsequence, of several the one of the package `rouge-score`."""
    rows = [(1 << len(second)) - 1, *_rows(first, second)]
    i, j, positions = len(first), len(second), []
    while i > 0 and j > 0:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            positions.append(i)
        elif _length(rows[i], j - 1) > _length(rows[i - 1], j):
            j -= 1
        else:
            i -= 1
    return positions[::-1]


def lcs_f_measure(target: Tokens, prediction: Tokens) -> float:
    """ROUGE-L, from 0 to 1."""
    if not target or not prediction:
        return 0.0
    return _f_measure(lcs_length(target, prediction), len(target), len(prediction))


def summary_lcs_f_measure(targets: Sequence[Tokens], predictions: Sequence[Tokens]) -> float:
    """ROUGE-Lsum of sentences, from 0 to 1: the union of each target's subsequences, no token counted twice."""
    num_targets, num_predictions = sum(map(len, targets)), sum(map(len, predictions))
    if not num_targets or not num_predictions:
        return 0.0
    left = [Counter(token for tokens in side for token in tokens) for side in (targets, predictions)]
    hits = 0
    for target in targets:
        for position in sorted(set().union(*(lcs_positions(target, prediction) for prediction in predictions))):
            if all(counts[target[position]] > 0 for counts in left):
                hits += 1
                for counts in left:
                    counts[target[position]] -= 1
    return _f_measure(hits, num_targets, num_predictions)


def _rows(first: Tokens, second: Tokens) -> Iterator[int]:
    """For each prefix of `first`, the row of its lengths with all prefixes of `second`."""
    masks: dict[Hashable, int] = {}
    positions: dict[Hashable, list[int]] = {}
    for position, token in enumerate(second):
        positions.setdefault(token, []).append(position)
    full = (1 << len(second)) - 1
    row = full
    for token in first:
        if token not in masks:
            masks[token] = _mask(positions.get(token, []), len(second))
        matches = row & masks[token]
        row = ((row + matches) | (row - matches)) & full
        yield row


def _mask(positions: Sequence[int], size: int) -> int:
    """A number with these bits set; made of bytes, since each change of a long number costs its length."""
    mask = bytearray(size // 8 + 1)
    for position in positions:
        mask[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(mask, "little")


def _length(row: int, count: int) -> int:
    """The length for the first `count` tokens of `second`."""
    return count - (row & ((1 << count) - 1)).bit_count()


def _f_measure(hits: int, num_targets: int, num_predictions: int) -> float:
    precision, recall = hits / num_predictions, hits / num_targets
    return 2 * precision * recall / (precision + recall) if hits else 0.0
