import numpy as np
import pytest

from hf_gpt.evaluation.statistics.bootstrap import (
    Averaged,
    Recomputed,
    Sums,
    bootstrap,
    difference,
    holm,
    interval,
    means,
)


def test_interval_of_a_mean_agrees_with_scipy():
    from scipy.stats import bootstrap as reference

    values = np.random.default_rng(1).exponential(size=80)
    ours = interval(bootstrap({"m": means({"x": values})}, 4000)["m"]["x"])
    theirs = reference((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.03)


def test_draws_are_of_equal_size_the_same_for_all_models_and_whatever_fits_in_memory(monkeypatch):
    values = np.arange(7.0)
    counted = Sums(np.ones((7, 1)), lambda sums: {"count": sums[0]})
    whole = bootstrap({"a": means({"x": values}), "b": means({"x": values}), "c": counted}, 50, seed=3)
    assert np.array_equal(whole["a"]["x"], whole["b"]["x"]) and (whole["c"]["count"] == 7).all()
    monkeypatch.setattr("hf_gpt.evaluation.statistics.bootstrap._WEIGHTS_AT_A_TIME", 20)
    assert np.array_equal(bootstrap({"a": means({"x": values})}, 50, seed=3)["a"]["x"], whole["a"]["x"])


def test_recomputed_and_sums_agree_on_every_draw():
    right = np.array([1, 0, 1, 1, 0, 1.0])
    recomputed = Recomputed([1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1], lambda p, r: {"x": np.mean(np.equal(p, r))})
    samples = bootstrap({"a": recomputed, "b": means({"x": right}), "c": Averaged([recomputed, recomputed])}, 30)
    assert samples["a"]["x"] == pytest.approx(samples["b"]["x"]) and samples["c"]["x"] == pytest.approx(
        samples["b"]["x"]
    )


def test_paired_test_sees_what_unpaired_intervals_hide():
    items = np.random.default_rng(0).normal(size=200)
    better, worse = means({"x": items + 0.05}), means({"x": items})
    samples = bootstrap({"b": better, "w": worse}, 500)
    found = difference(better.value()["x"] - worse.value()["x"], samples["b"]["x"], samples["w"]["x"])
    assert found.low == pytest.approx(0.05) and found.p_value == pytest.approx(2 / 501)
    assert interval(samples["w"]["x"])[1] > interval(samples["b"]["x"])[0]
    assert difference(0.0, samples["w"]["x"], samples["w"]["x"]).p_value == 1
    endless = np.full(500, np.inf)
    assert difference(np.nan, endless, endless).p_value == 1
    assert difference(-np.inf, samples["w"]["x"], endless).p_value == pytest.approx(2 / 501)


def test_false_alarms_of_the_paired_test_are_about_as_many_as_promised():
    generator = np.random.default_rng(0)
    alarms = 0
    for trial in range(200):
        first, second = generator.normal(size=(2, 60))
        samples = bootstrap({"a": means({"x": first}), "b": means({"x": second})}, 200, seed=trial)
        alarms += difference(0.0, samples["a"]["x"], samples["b"]["x"]).p_value < 0.05
    assert 2 <= alarms <= 24


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_models_with_different_items_are_refused():
    with pytest.raises(ValueError, match="Give the same items"):
        bootstrap({"a": means({"x": [1, 2]}), "b": means({"x": [1]})}, 10)
