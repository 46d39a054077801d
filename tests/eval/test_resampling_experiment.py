"""The arithmetic of the resampling experiment: curves, gains, choices, and results that outlive a stop."""

import pytest
import torch

from hf_gpt.eval.experiments.resampling import Results, choices, envelope, gain_at, summarise


CURVE = [(4.0, 3.0), (5.0, 2.0), (6.0, 1.5)]


def test_gain_by_hand():
    assert gain_at((4.5, 2.2), CURVE) == pytest.approx(0.3)
    assert gain_at((5.5, 2.0), CURVE) == pytest.approx(-0.25)
    # More diverse than the curve gets: held against its most diverse point.
    assert gain_at((3.5, 2.9), CURVE) == pytest.approx(0.1)
    assert gain_at((6.5, 1.0), CURVE) is None


def test_envelope_leaves_out_what_is_beaten_in_both():
    assert envelope([(5.0, 2.0), (4.0, 3.0), (4.5, 3.1), (6.0, 2.5), (5.5, 1.9)]) == [
        (4.0, 3.0),
        (5.0, 2.0),
        (5.5, 1.9),
    ]


def test_every_choice_takes_as_many_rows_and_prefers_high_scores():
    scores = torch.randn(8 * 200, generator=torch.Generator().manual_seed(0))
    found = choices(scores, 200, seed=1)
    assert len(found) >= 14
    for name, rows in found.items():
        assert len(rows) == 200 and len(rows.unique()) == 200, name
        assert scores[rows].mean() > 0.2, name
    means = [scores[found[f"resample n={n} tau=1"]].mean().item() for n in (2, 4, 8)]
    assert means == sorted(means)
    # Of a standard normal the best of 8 is 1.42 on average, and reweighting by exp(l) shifts its mean towards 1.
    assert scores[found["best of 8"]].mean().item() == pytest.approx(1.42, abs=0.15)
    assert 0.6 < means[-1] < 1.0
    again = choices(scores, 200, seed=1)
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_summary_of_two_seeds():
    points = {}
    for seed, shift in ((0, 0.0), (1, 0.2)):
        for reverse, quality in CURVE:
            points[f"{seed}/temperature {quality}"] = {"reverse_lm_score": reverse, "lm_score": quality}
        points[f"{seed}/cnn best of 2"] = {"reverse_lm_score": 4.5, "lm_score": 2.2 + shift}
    points = {name: {**point, "distinct_share": 1.0} for name, point in points.items()}
    row = next(row for row in summarise(points, [0, 1]) if row["name"] == "cnn best of 2")
    assert row["gain_temperature"] == pytest.approx([0.3, 0.1]) and row["lm_score"] == pytest.approx(2.3)


def test_points_are_measured_once_and_kept(tmp_path):
    path = tmp_path / "results.json"
    results = Results(path, {"num_samples": 3})
    assert results.point(0, "a", lambda: {"lm_score": 1.0})["lm_score"] == 1.0
    again = Results(path, {"num_samples": 3})
    assert again.point(0, "a", lambda: pytest.fail("measured twice"))["lm_score"] == 1.0
    with pytest.raises(SystemExit, match="other settings"):
        Results(path, {"num_samples": 4})
