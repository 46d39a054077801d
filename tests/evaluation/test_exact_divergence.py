import math

import numpy as np
import pytest

from hf_gpt.evaluation import load
from hf_gpt.evaluation.statistics.exact_divergence import exact_divergences


P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])


def samples(count, seed=0):
    generator = np.random.default_rng(seed)
    at_q, at_p = generator.choice(3, count, p=Q), generator.choice(3, count, p=P)
    return np.log(Q)[at_q], np.log(P)[at_q], np.log(Q)[at_p], np.log(P)[at_p]


def exact():
    mixture = (P + Q) / 2
    return {
        "nll_oracle": -(Q * np.log(P)).sum(),
        "nll_test": -(P * np.log(Q)).sum(),
        "entropy": -(Q * np.log(Q)).sum(),
        "data_entropy": -(P * np.log(P)).sum(),
        "reverse_kl": (Q * np.log(Q / P)).sum(),
        "forward_kl": (P * np.log(P / Q)).sum(),
        "jsd": ((P * np.log(P / mixture)).sum() + (Q * np.log(Q / mixture)).sum()) / 2,
    }


def test_estimates_agree_with_sums_over_all_outcomes():
    found = exact_divergences(*samples(50_000))
    for name, value in exact().items():
        assert found[name] == pytest.approx(value, abs=4 * found[f"{name}_error"]), name
        assert 0 < found[f"{name}_error"] < 0.01
    assert found["reverse_kl"] == pytest.approx(found["nll_oracle"] - found["entropy"])


def test_standard_errors_are_those_of_repeated_estimates():
    runs = [exact_divergences(*samples(200, seed)) for seed in range(300)]
    for name in exact():
        spread = np.std([run[name] for run in runs])
        assert np.mean([run[f"{name}_error"] for run in runs]) == pytest.approx(spread, rel=0.15), name


def test_distributions_without_common_support():
    found = exact_divergences([-1.0, -1.0], [-np.inf, -np.inf], [-np.inf, -np.inf], [-2.0, -2.0])
    assert found["reverse_kl"] == math.inf and found["jsd"] == pytest.approx(math.log(2)) and found["jsd_error"] == 0


def test_metric_and_its_checks():
    metric = load("exact_divergence")
    at_q, data_at_q, at_p, data_at_p = samples(500)
    given = {"data_predictions": at_p, "data_references": data_at_p}
    found = metric.compute(predictions=at_q, references=data_at_q, **given)
    assert found == pytest.approx(exact_divergences(at_q, data_at_q, at_p, data_at_p))
    for wrong, message in [
        ({}, "data_predictions and data_references are missing"),
        ({**given, "data_predictions": at_p[:5]}, "data_predictions has 5, data_references has 500"),
        ({**given, "data_predictions": at_p * np.nan}, "holds NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric.compute(predictions=at_q, references=data_at_q, **wrong)
    with pytest.raises(ValueError, match=r"references\[0\] is nan"):
        metric.compute(predictions=[0.0, 0.0], references=[float("nan"), 0.0], **given)
