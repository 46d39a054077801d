"""Bounds of log Z and the gain of a residual model, where Z is known."""

import numpy as np
import pytest
from scipy.special import logsumexp

from hf_gpt.evaluation.language_model.residual import log_partition_bounds, residual_gain


@pytest.fixture
def language():
    """A language of 60 texts: log q, logits l and log Z."""
    random = np.random.default_rng(0)
    log_q = np.log(random.dirichlet(np.ones(60)))
    scores = random.normal(0, 1, 60)
    return log_q, scores, float(logsumexp(log_q + scores))


def test_bounds_enclose_the_partition_function_and_meet(language):
    log_q, scores, log_z = language
    random, gaps = np.random.default_rng(1), []
    for number in (8, 64, 512):
        drawn = random.choice(60, size=(200_000 // number, number), p=np.exp(log_q))
        below, above = log_partition_bounds(scores[drawn])
        error = 4 * below.std() / np.sqrt(len(below))
        assert below.mean() < log_z + error and log_z - error < above.mean()
        gaps.append(above.mean() - below.mean())
    assert gaps[0] > 0.05 and gaps[0] > 4 * gaps[1] > 16 * gaps[2] > 0


def test_bounds_by_hand():
    below, above = log_partition_bounds([[0.0, 0.0, 0.0], [np.log(1.0), np.log(2.0), np.log(3.0)]])
    left_out = np.log([2.5, 2.0, 1.5]).mean()
    assert below == pytest.approx([0, np.log(2)]) and above == pytest.approx([0, 5 * np.log(2) - 4 * left_out])


def test_gain_is_that_of_the_exact_model(language):
    log_q, scores, log_z = language
    random = np.random.default_rng(2)
    # Real texts follow the residual model itself, so that the gain is its divergence from q.
    log_p = log_q + scores - log_z
    exact = float(np.exp(log_p) @ (log_p - log_q))
    covered = 0
    for _ in range(100):
        real = scores[random.choice(60, 400, p=np.exp(log_p))]
        one = residual_gain(real, scores[random.choice(60, (1, 4000), p=np.exp(log_q))])
        each = residual_gain(real, scores[random.choice(60, (400, 16), p=np.exp(log_q))])
        assert each.low <= each.lower <= each.gain <= each.upper <= each.high
        covered += one.low <= exact <= one.high
        assert each.low - 0.05 < exact < each.high + 0.05
    assert covered >= 90


def test_a_discriminator_that_cannot_tell_gains_nothing():
    found = residual_gain(np.zeros(10), np.zeros((10, 4)))
    assert (found.gain, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_one_text_far_above_all_others_stays_finite():
    below, above = log_partition_bounds([[800.0, -800.0, 0.0]])
    assert np.isfinite([below, above]).all() and below[0] == pytest.approx(800 - np.log(3))


@pytest.mark.parametrize(
    "real, generated, message",
    [
        ([0.0, 1.0], [[0.0], [1.0]], "at least two generated"),
        ([0.0, 1.0], [0.0, 1.0], "each prompt"),
        ([0.0, 1.0], [[0.0, np.inf]], "finite"),
        ([0.0, np.nan], [[0.0, 1.0]], "finite"),
        ([0.0], [[0.0, 1.0]], "two real texts"),
        ([0.0, 1.0, 2.0], [[0.0, 1.0], [0.0, 1.0]], "3 real texts and generated texts for 2 prompts"),
    ],
)
def test_what_cannot_be_measured_is_refused(real, generated, message):
    with pytest.raises(ValueError, match=message):
        residual_gain(real, generated)
