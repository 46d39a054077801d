"""Which rows are held out, so that no text stands on both sides of a split."""

from collections.abc import Hashable, Iterable

import numpy as np


def held_out_rows(keys: Iterable[Hashable], fraction: float, seed: int) -> np.ndarray:
    """Rows to hold out, the same ones for the same keys and seed; rows of one key are on one side.

    Args:
        keys: What each row says, of two rows or more. Where all say the same, the split is one of rows.
        fraction: Share held out, above 0 and below 1: so many rows, or a few less where rows repeat.
        seed: Seed of the draw.

    Returns:
        (N,) int64, rising: at least one row, and not all.
    """
    # Keys may be long texts; a number of each is enough.
    numbers: dict[int, int] = {}
    groups = np.array([numbers.setdefault(hash(key), len(numbers)) for key in keys])
    if len(numbers) == 1:
        groups = np.arange(len(groups))
    sizes = np.bincount(groups)
    count = min(max(1, round(len(groups) * fraction)), len(groups) - 1)
    drawn = groups[np.random.default_rng(seed).permutation(len(groups))]
    chosen: set[int] = set()
    for group in dict.fromkeys(drawn.tolist()):
        if sizes[group] <= count:
            chosen.add(group)
            count -= sizes[group]
        if not count:
            break
    # Every text repeats more often than rows are wanted.
    chosen = chosen or {int(sizes.argmin())}
    return np.flatnonzero(np.isin(groups, list(chosen)))
