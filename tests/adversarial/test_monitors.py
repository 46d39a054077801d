import json

import pytest

from hf_gpt.adversarial.monitoring.monitors import METRICS, RULES, Monitors, Thresholds


# A run that goes well: every figure, at the first evaluation and at a later one.
START = {
    "heldout_auc": 0.80,
    "train_auc": 0.82,
    "shortcut_auc": 0.52,
    "discriminator_accuracy": 0.72,
    "low_contrast_share": 0.0,
    "entropy": 3.0,
    "data_entropy": 2.5,
    "oracle_nll": 3.2,
    "distinct_ngrams": 9000,
    "real_distinct_ngrams": 9500,
    "duplicate_rate": 0.01,
    "real_duplicate_rate": 0.01,
    "repetition_rate": 0.01,
    "real_repetition_rate": 0.01,
    "fresh_auc": 0.80,
    "reward": 0.0,
    "reward_std": 1.0,
    "length_drift": 0.1,
    "heldout_nll": 2.8,
    "logp_mismatch": 1e-6,
    "copy_rate": 0.002,
    "real_copy_rate": 0.002,
    "real_copy_deviation": 0.001,
}
LATER = START | {"heldout_auc": 0.70, "fresh_auc": 0.72, "entropy": 2.6, "oracle_nll": 2.7, "reward": 1.2}

# What each warning is for, as the change that makes it of a healthy run.
FAILURES = [
    ("useless discriminator", {"heldout_auc": 0.53, "train_auc": 0.55, "fresh_auc": 0.6}),
    ("discriminator memorises", {"train_auc": 0.90}),
    ("discriminator shortcut", {"shortcut_auc": 0.75}),
    ("vanishing reward", {"low_contrast_share": 0.085}),
    ("entropy collapse", {"entropy": 2.2}),
    ("likelier than the data", {"oracle_nll": 0.8}),
    ("few different n-grams", {"distinct_ngrams": 4000}),
    ("repeated texts", {"repetition_rate": 0.6}),
    ("repeated texts", {"duplicate_rate": 0.3}),
    ("reward hacking", {"fresh_auc": 0.86, "heldout_auc": 0.80, "reward": 0.3}),
    ("fooled discriminator", {"heldout_auc": 0.56, "train_auc": 0.58}),
    ("unearned reward", {"reward": 2.5, "fresh_auc": 0.80}),
    ("length drift", {"length_drift": 0.8}),
    ("forgetting", {"heldout_nll": 3.0}),
    ("sampler and trainer disagree", {"logp_mismatch": 0.02}),
    ("copied texts", {"copy_rate": 0.006}),
]


def _names(warnings):
    return [warning.name for warning in warnings]


def test_a_healthy_run_is_silent():
    monitors = Monitors()
    assert monitors.update(0, **START) == [] and monitors.update(100, **LATER) == []
    assert not monitors.should_stop
    assert set(START) == set(METRICS)


@pytest.mark.parametrize(("name", "change"), FAILURES, ids=[name for name, _ in FAILURES])
def test_each_failure_raises_its_own_warning_alone(name, change):
    monitors = Monitors()
    monitors.update(0, **START)
    (warning,) = monitors.update(100, **LATER | change)
    assert warning.name == name and warning.step == 100
    assert name in str(warning) and warning.advice in str(warning)


def test_every_rule_has_a_failure_that_tests_it():
    assert {rule.name for rule in RULES} == {name for name, _ in FAILURES} | {"discriminator too sure at the start"}


def test_too_sure_from_the_start():
    monitors = Monitors()
    assert _names(monitors.update(0, discriminator_accuracy=0.98)) == ["discriminator too sure at the start"]
    assert monitors.update(100, discriminator_accuracy=0.98) == []
    monitors = Monitors()
    monitors.update(0, discriminator_accuracy=0.7)
    assert monitors.update(100, discriminator_accuracy=0.98) == []


def test_entropy_against_the_start_where_the_data_is_unknown():
    monitors = Monitors()
    assert monitors.update(0, entropy=3.0) == [] and monitors.update(1, entropy=2.6) == []
    (warning,) = monitors.update(2, entropy=2.5)
    assert warning.name == "entropy collapse" and warning.value == pytest.approx(2.5 / 3)
    # An over-dispersed start may fall far, as long as it stays above the data.
    monitors = Monitors()
    monitors.update(0, entropy=3.0, data_entropy=2.2)
    assert monitors.update(1, entropy=2.4, data_entropy=2.2) == []


def test_a_discriminator_may_be_useless_in_its_warm_up_alone():
    monitors = Monitors(warmup_steps=10)
    assert monitors.update(0, heldout_auc=0.5) == []
    assert monitors.update(5, heldout_auc=0.66) == []
    assert _names(monitors.update(10, heldout_auc=0.54)) == ["useless discriminator"]
    assert Monitors(Thresholds(min_auc=None)).update(10, heldout_auc=0.54) == []


def test_a_gate_that_asks_for_more_does_not_call_the_rest_guessing():
    (raised,) = Monitors(Thresholds(min_auc=0.99)).update(1, heldout_auc=0.8)
    assert "below gate_auc" in raised.advice and "no better than guessing" not in raised.advice


def test_stops_after_lasting_trouble_and_names_the_best_step():
    monitors = Monitors(patience=2, best_metric="fresh_auc")
    monitors.update(0, heldout_nll=2.8, fresh_auc=0.80)
    monitors.update(10, heldout_nll=2.8, fresh_auc=0.70)
    monitors.update(20, heldout_nll=2.8, fresh_auc=0.72)
    assert monitors.best_step == 10
    # Better by the figure, but while forgetting.
    assert _names(monitors.update(30, heldout_nll=3.0, fresh_auc=0.65)) == ["forgetting"]
    assert monitors.best_step == 10 and not monitors.should_stop
    monitors.update(31, heldout_auc=0.7)
    monitors.update(40, heldout_nll=3.1, fresh_auc=0.66)
    assert monitors.should_stop and monitors.best_step == 10 and monitors.best_value == 0.70


def test_one_bad_evaluation_does_not_stop():
    monitors = Monitors(patience=2)
    for step, nll in enumerate((2.8, 3.0, 2.8, 3.0)):
        monitors.update(step, heldout_nll=nll)
    assert not monitors.should_stop and monitors.best_step == 2


def test_without_a_figure_the_last_healthy_step_is_best_and_high_may_be_good():
    monitors = Monitors()
    monitors.update(0, heldout_nll=2.8)
    monitors.update(1, heldout_auc=0.9)
    assert monitors.best_step == 0
    high = Monitors(best_metric="bleu", greater_is_better=True)
    for step, value in enumerate((0.2, 0.3, 0.3, 0.1)):
        high.update(step, bleu=value)
    assert high.best_step == 1


def test_reference_values_may_come_from_before_the_run():
    monitors = Monitors(first={"heldout_nll": 2.5})
    assert _names(monitors.update(0, heldout_nll=2.8)) == ["forgetting"]


def test_unknown_and_missing_figures():
    monitors = Monitors()
    with pytest.raises(ValueError, match="no metric 'heldout_nl'; did you mean heldout_nll"):
        monitors.update(0, heldout_nl=2.0)
    assert monitors.update(0, heldout_nll=None, heldout_auc=float("nan")) == [] and monitors.latest == {}


def test_thresholds_can_be_moved_and_switched_off():
    monitors = Monitors(Thresholds(max_nll_rise=0.5, max_length_drift=None))
    monitors.update(0, heldout_nll=2.0)
    assert monitors.update(1, heldout_nll=2.9, length_drift=9.0) == []


def test_state_survives_json():
    monitors = Monitors(patience=2, best_metric="fresh_auc")
    monitors.update(0, **START)
    monitors.update(10, **LATER | {"heldout_nll": 3.0})
    restored = Monitors(patience=2, best_metric="fresh_auc")
    restored.load_state_dict(json.loads(json.dumps(monitors.state_dict())))
    assert restored == monitors
    change = LATER | {"heldout_nll": 3.1}
    assert restored.update(20, **change) == monitors.update(20, **change)
    assert restored.should_stop and monitors.should_stop
