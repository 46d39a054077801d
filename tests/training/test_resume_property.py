"""A resumed run is the straight one bit for bit, whatever its options and wherever it stopped."""

import pytest

from tests.training.resumed_runs import check, sample


# The first ones, and two that go on from the last checkpoint of a run, by its steps and by early stopping.
QUICK = [*range(6), 103, 105]


@pytest.mark.parametrize("seed", QUICK)
def test_a_drawn_run_goes_on_as_the_straight_one(seed, tmp_path):
    assert check(seed, tmp_path) == [], sample(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 400, 50))
def test_many_drawn_runs_go_on_as_the_straight_ones(first, tmp_path):
    found = {seed: check(seed, tmp_path / str(seed)) for seed in range(first, first + 50)}
    assert {seed: lines for seed, lines in found.items() if lines} == {}
