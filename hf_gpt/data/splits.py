"""Which rows are held out, so that no text is on both sides of a split."""

from collections.abc import Hashable, Iterable

import numpy as np


def same_text(text: str) -> str:
    """What a text says whatever its case and blanks: equal for texts that count as copies of each other."""
    return " ".join(text.split()).casefold()


def held_out_rows(keys: Iterable[Hashable], fraction: float, seed: int, *, is_stratified: bool = False) -> np.ndarray:
    """Rows to hold out, the same ones for the same keys and seed; rows of one key are on one side.

    Args:
        keys: What each row says, of two rows or more. Where all say the same, the split is one of rows.
        fraction: Share held out, above 0 and below 1: so many rows, or a few less where rows repeat.
        seed: Seed of the choice.
        is_stratified: Whether rows are sampled evenly from first to last, one from each stretch of `1 / fraction`:
            for rows whose neighbours are of one kind, such as blocks of a text.

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
    generator = np.random.default_rng(seed)
    order = groups[_stratified(len(groups), count, generator) if is_stratified else generator.permutation(len(groups))]
    chosen: set[int] = set()
    for group in dict.fromkeys(order.tolist()):
        if sizes[group] <= count:
            chosen.add(group)
            count -= sizes[group]
        if not count:
            break
    # Every text repeats more often than rows are wanted.
    chosen = chosen or {int(sizes.argmin())}
    return np.flatnonzero(np.isin(groups, list(chosen)))


def _stratified(number: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """All rows in random order, first one from each of `count` stretches; or last, where those are the smaller side."""
    smaller = min(count, number - count)
    edges = np.linspace(0, number, smaller + 1).round().astype(int)
    first = generator.permutation(generator.integers(edges[:-1], edges[1:]))
    rest = generator.permutation(np.setdiff1d(np.arange(number), first))
    return np.concatenate([first, rest] if smaller == count else [rest, first])
