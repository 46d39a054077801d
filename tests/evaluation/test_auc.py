"""Standard errors and intervals of AUCs, splits that keep copies together, and measured controls."""

import math

import numpy as np
import pytest

from hf_gpt.evaluation import load
from hf_gpt.evaluation.two_sample.auc_interval import auc, auc_interval, hanley_mcneil_error, true_positive_rate
from hf_gpt.evaluation.two_sample.classifier_test import classifier_test, controlled_test, mean_over_splits


def scores(shift, real, generated, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(shift, 1, real), generator.normal(0, 1, generated)


@pytest.mark.parametrize(("shift", "real", "generated"), [(0, 300, 300), (0.47, 400, 200), (1.2, 250, 500)])
def test_standard_errors_are_those_of_samples_drawn_anew(shift, real, generated):
    anew = np.std([auc(*scores(shift, real, generated, seed)) for seed in range(400)])
    found = auc_interval(*scores(shift, real, generated))
    assert found.standard_error == pytest.approx(anew, rel=0.15)
    assert hanley_mcneil_error(found.auc, real, generated) == pytest.approx(anew, rel=0.15)


def test_hanley_and_mcneil_by_hand():
    # At 0.5 the variance is (n + m + 1) / (12 n m), that of the Mann-Whitney test.
    assert hanley_mcneil_error(0.5, 40, 70) == pytest.approx(math.sqrt(111 / (12 * 40 * 70)))
    # 2,000 and 1,000 texts a point of which half are judged: what docs called 0.008 and 0.012.
    assert hanley_mcneil_error(0.63, 1000, 1000) == pytest.approx(0.0124, abs=5e-5)
    assert hanley_mcneil_error(0.63, 500, 500) == pytest.approx(0.0175, abs=1e-4)
    assert hanley_mcneil_error(1, 50, 50) > 0 and hanley_mcneil_error(0, 50, 50) > 0
    for wrong in ((1.5, 10, 10), (math.nan, 10, 10), (0.5, 0, 10)):
        with pytest.raises(ValueError, match="AUC"):
            hanley_mcneil_error(*wrong)


@pytest.mark.parametrize(("real", "generated", "value"), [([2.0] * 50, [1.0] * 50, 1), ([1.0] * 50, [2.0] * 50, 0)])
def test_a_perfect_auc_has_an_interval(real, generated, value):
    found = auc_interval(np.array(real), np.array(generated))
    assert found.auc == value and found.high - found.low == pytest.approx(1.96**2 / (50 + 1.96**2), abs=1e-3)
    assert min(found.low, found.high, key=lambda end: abs(end - value)) == value and found.standard_error > 0


def test_scores_that_are_all_the_same_tell_nothing():
    found = auc_interval(np.ones(40), np.ones(40))
    assert found.auc == 0.5 and found.low < 0.4 and found.high > 0.6 and found.p_value == 0.5


def test_nan_and_empty_scores_are_named():
    broken = np.array([0.1, np.nan, 0.3])
    with pytest.raises(ValueError, match="1 of 3 scores of generated texts are NaN"):
        auc_interval(np.ones(5), broken)
    assert math.isnan(auc(np.ones(5), broken))
    with pytest.raises(ValueError, match="no scores of real texts"):
        auc(np.array([]), np.ones(3))
    with pytest.raises(ValueError, match="resamples"):
        auc_interval(np.ones(5), np.ones(5), resamples=1)


def by_first_word(texts, labels, others):
    """A classifier that remembers every text, by how often each was real."""
    seen = {}
    for text, label in zip(texts, labels, strict=True):
        seen.setdefault(tuple(text), []).append(label)
    score = lambda text: np.mean(seen.get(tuple(text), [0.5]))  # noqa: E731
    return np.array([score(text) for text in texts]), np.array([score(text) for text in others])


def test_a_memory_of_texts_is_no_use_where_copies_are_in_one_half():
    generator = np.random.default_rng(0)
    real = [[f"r{n}"] for n in generator.integers(0, 60, 200)]
    generated = [[f"f{n}"] for n in generator.integers(0, 60, 200)]
    found = classifier_test(real, generated, by_first_word)
    assert found["train_auc"] == 1 and found["auc"] == 0.5
    assert found["auc_low"] < 0.5 < found["auc_high"]
    # A generator that copies real texts: what is real in one half is not generated in the other.
    assert classifier_test(real, real, by_first_word)["auc"] == 0.5


def test_both_halves_hold_texts_of_a_generator_that_repeats_itself():
    real, generated = [[f"r{n}"] for n in range(80)], [["same"]] * 80
    found = classifier_test(real, generated, by_first_word)
    assert found["auc"] == 1 and found["auc_low"] < 1 and found["n_test"] == 80


def test_halves_are_halves():
    real, generated = [[f"r{n}"] for n in range(61)], [[f"f{n}"] for n in range(40)]
    found = classifier_test(real, generated, by_first_word, num_splits=3)
    assert (found["n_train"], found["n_test"], found["num_splits"]) == (50, 51, 3)


def test_the_mean_of_splits_is_no_surer_than_one():
    parts = [auc_interval(*scores(0.5, 200, 200, seed), seed=seed) for seed in range(4)]
    found = mean_over_splits(parts)
    assert found["auc"] == pytest.approx(np.mean([part.auc for part in parts]))
    single = math.sqrt(np.mean([part.standard_error**2 for part in parts]))
    assert found["auc_error"] >= single - 1e-12
    assert found["auc_high"] - found["auc_low"] >= np.mean([part.high - part.low for part in parts]) - 1e-12
    # Splits that differ more than their errors say make it wider.
    apart = [auc_interval(*scores(shift, 200, 200)) for shift in (0, 2)]
    wide = mean_over_splits(apart)
    assert wide["auc_error"] == pytest.approx(np.std([part.auc for part in apart], ddof=1))


def test_intervals_of_the_mean_cover_one_half():
    from hf_gpt.evaluation.two_sample.tfidf_classifier import tfidf_scores

    def texts(seed):
        return [[f"w{n}" for n in row] for row in np.random.default_rng(seed).integers(0, 30, (60, 6))]

    found = [classifier_test(texts(2 * n), texts(2 * n + 1), tfidf_scores, resamples=100) for n in range(30)]
    assert sum(one["auc_low"] <= 0.5 <= one["auc_high"] for one in found) >= 27


@pytest.mark.parametrize("name", ["c2st", "tfidf_test"])
def test_the_control_is_measured(name):
    generator = np.random.default_rng(0)
    real, more, generated = (
        [" ".join(f"w{n}" for n in row) for row in generator.integers(low, low + 30, (80, 8))] for low in (0, 0, 15)
    )
    options = {"epochs": 2, "num_splits": 2} if name == "c2st" else {}
    found = load(name).compute(predictions=generated, references=real, held_out=more, **options)
    assert found["auc"] > 0.8 and found["n_test"] == found["real_n_test"] == 80
    assert found["real_auc_low"] < 0.5 < found["real_auc_high"] and found["real_auc"] != 0.5
    halves = load(name).compute(predictions=generated, references=real, **options)
    assert halves["real_n_test"] == 40 and halves["auc"] == found["auc"]
    # Held-out texts of another kind, as the end of a book is: the control says so.
    assert load(name).compute(predictions=generated, references=real, held_out=generated, **options)["real_auc"] > 0.8


def test_a_control_of_few_texts_is_left_out():
    real, generated = [[f"r{n}"] for n in range(30)], [[f"f{n}"] for n in range(30)]
    assert "real_auc" not in controlled_test(real, generated, by_first_word)
    with pytest.raises(ValueError, match="held_out holds 5 texts"):
        controlled_test(real, generated, by_first_word, held_out=real[:5])
    with pytest.raises(ValueError, match="num_splits"):
        classifier_test(real, generated, by_first_word, num_splits=0)


@pytest.mark.parametrize(
    "negatives, rate, expected",
    [(range(100), 0.01, 0.6), (range(100), 0.05, 1.0), (range(100), 0.0, 0.4), ([5.0] * 10, 0.05, 1.0)],
)
def test_true_positive_rate_by_hand(negatives, rate, expected):
    positives = np.array([94.5, 96.5, 98.5, 99.5, 200.0]) if len(set(negatives)) > 1 else np.array([6.0, 7.0])
    assert true_positive_rate(positives, np.array(negatives, float), rate) == pytest.approx(expected)
    exceeding = (np.array(negatives) > np.sort(negatives)[::-1][int(rate * len(negatives))]).mean()
    assert exceeding <= rate


def test_true_positive_rate_agrees_with_the_curve_of_scikit_learn():
    from sklearn.metrics import roc_curve

    random = np.random.default_rng(0)
    positives, negatives = random.normal(1, 1, 500), random.normal(0, 1, 700)
    labels = np.repeat([1, 0], [500, 700])
    false, true, _ = roc_curve(labels, np.concatenate([positives, negatives]), drop_intermediate=False)
    for rate in (0.01, 0.05, 0.5):
        assert true_positive_rate(positives, negatives, rate) == pytest.approx(true[false <= rate].max())
    with pytest.raises(ValueError, match="false positive rate"):
        true_positive_rate(positives, negatives, 1.0)
