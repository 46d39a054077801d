"""Splits that keep copies of a text on one side."""

import numpy as np
import pytest

from hf_gpt.data.splits import held_out_rows


def test_rows_without_copies_are_drawn_by_seed():
    keys = [f"text {n}" for n in range(50)]
    rows = held_out_rows(keys, 0.1, seed=3)
    assert rows.tolist() == sorted(np.random.default_rng(3).permutation(50)[:5].tolist())
    assert held_out_rows(keys, 0.1, seed=3).tolist() == rows.tolist()
    assert held_out_rows(keys, 0.1, seed=4).tolist() != rows.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_on_one_side(seed):
    keys = [n % 70 for n in range(100)] + ["often"] * 40
    held_out = held_out_rows(keys, 0.1, seed)
    texts = {keys[row] for row in held_out}
    assert not texts & {key for row, key in enumerate(keys) if row not in held_out}
    assert 12 <= len(held_out) <= 14 and "often" not in texts


@pytest.mark.parametrize(
    ("keys", "count"), [(["a"] * 10, 1), (["a", "b"], 1), (["a"] * 6 + ["b"] * 4, 4), (["a", "a", "b"], 1)]
)
def test_neither_side_is_empty(keys, count):
    assert len(held_out_rows(keys, 0.1, seed=0)) == count


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7])
def test_stratified_rows_come_from_every_stretch(fraction):
    rows = held_out_rows(range(1000), fraction, seed=0, is_stratified=True)
    assert len(rows) == 1000 * fraction
    counts = np.histogram(rows, bins=10, range=(0, 1000))[0]
    assert abs(counts - 100 * fraction).max() <= 1
    assert held_out_rows(range(1000), fraction, seed=1, is_stratified=True).tolist() != rows.tolist()
