"""The resampling experiment: curves, gains, choices, pools, particles, and results that outlive a stop."""

import json

import numpy as np
import pytest
import torch

from eval.experiments.common.results import Results
from eval.experiments.resampling.choosing import WAYS, choose
from eval.experiments.resampling.curves import envelope, gain_at, passes, summarise
from eval.experiments.resampling.discriminators import log_ratio
from eval.experiments.resampling.particles import sample_by_particles
from eval.experiments.resampling.pools import encode, sample, text_logps
from eval.experiments.resampling.report import write_plot, write_table
from hf_gpt.evaluation.language_model.fitting import seeded
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import EOS, WordVocabulary


CURVE = [(4.0, 3.0), (5.0, 2.0), (6.0, 1.5)]
CURVES = {"temperature": ("temperature ",)}


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


@pytest.mark.parametrize("way", WAYS)
def test_every_choice_takes_as_many_rows_and_prefers_high_scores(way):
    scores = torch.randn(8 * 200, generator=torch.Generator().manual_seed(0))
    rows = choose(way, scores, 200, 8, seed=1)
    assert len(rows) == 200 and len(rows.unique()) == 200
    assert scores[rows].mean() > 0.4
    assert torch.equal(rows, choose(way, scores, 200, 8, seed=1))
    with pytest.raises(ValueError, match="need 1800"):
        choose(way, scores, 200, 9, seed=1)


def test_choices_by_hand():
    scores = torch.randn(8 * 500, generator=torch.Generator().manual_seed(0))
    means = {way: scores[choose(way, scores, 500, 8, seed=1)].mean().item() for way in WAYS}
    # Of a standard normal the best of 8 is 1.42 on average, and reweighting by exp(l) shifts its mean towards 1.
    assert means["best"] == pytest.approx(1.42, abs=0.1) and 0.6 < means["resample"] < 1.0
    few = scores[choose("resample", scores, 500, 2, seed=1)].mean()
    assert 0.2 < few < means["resample"]


def test_summary_of_two_seeds():
    points = {}
    for seed, shift in ((0, 0.0), (1, 0.2)):
        for reverse, quality in CURVE:
            points[f"{seed}/temperature {quality}"] = {"reverse_lm_score": reverse, "lm_score": quality}
        points[f"{seed}/cnn best of 2"] = {"reverse_lm_score": 4.5, "lm_score": 2.2 + shift}
    points = {name: {**point, "distinct_share": 1.0} for name, point in points.items()}
    row = next(row for row in summarise(points, [0, 1], CURVES) if row["name"] == "cnn best of 2")
    assert row["gain_temperature"] == pytest.approx([0.3, 0.1]) and row["lm_score"] == pytest.approx(2.3)
    assert passes([0.3, 0.11]) and not passes([0.3, 0.09]) and not passes([0.3, None])


def test_report_names_what_passes(tmp_path):
    scores = {
        "real": (3.0, 3.5),
        "temperature 1": (3.0, 4.0),
        "temperature 0.8": (2.0, 5.0),
        "ratio: resample of 8": (2.2, 4.5),
        "ratio: best of 8": (2.45, 4.5),
        "larger model T=1": (2.4, 4.2),
    }
    points = {
        f"{seed}/{name}": {"lm_score": quality, "reverse_lm_score": reverse, "distinct_share": 1.0}
        for seed in (0, 1)
        for name, (quality, reverse) in scores.items()
    }
    del points["1/ratio: best of 8"]
    points["0/discriminator ratio"] = {"weights": [1.0], "unseen_auc": 0.75}
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"settings": {}, "points": points}))
    text = write_table("captions", points, 5, folder)
    assert "in every seed: passed by ratio: resample of 8." in text and "seeds 0, 1" in text
    assert "| ratio: best of 8 | 2.450 | 4.500 | 100.0% | +0.050 (+0.05, not measured) |" in text
    assert "discriminator ratio: AUC on texts that no model has seen 0.750" in text
    write_plot(tmp_path)
    assert (tmp_path / "resampling.png").stat().st_size > 10_000


def test_points_are_measured_once_and_kept(tmp_path):
    path = tmp_path / "results.json"
    results = Results(path, {"num_samples": 3})
    assert results.point(0, "a", lambda: {"lm_score": 1.0})["lm_score"] == 1.0
    again = Results(path, {"num_samples": 3})
    assert again.point(0, "a", lambda: pytest.fail("measured twice"))["lm_score"] == 1.0
    with pytest.raises(SystemExit, match="other settings"):
        Results(path, {"num_samples": 4})


@pytest.fixture(scope="module")
def players() -> tuple[WordModel, WordModel]:
    """q and psi over five words and at most twelve of them, unlike each other."""
    vocabulary = WordVocabulary([list("abcde")])
    q, psi = (WordModel(vocabulary, 12, 16, 1, seed=0) for _ in range(2))
    with seeded(0), torch.no_grad():
        q.model.lm_head.weight.normal_(std=0.2)
        psi.model.lm_head.weight.copy_(q.model.lm_head.weight)
        psi.model.lm_head.weight += 0.07 * torch.randn_like(psi.model.lm_head.weight)
    return q, psi


def test_log_probabilities_of_a_pool_are_those_of_its_words(players):
    q, _ = players
    texts = [list("abcdeabcdeabcde"[start : start + length]) for start in range(3) for length in range(13)]
    pool = encode(texts, q.vocabulary, q.max_length)
    assert pool.words(q.vocabulary) == texts and pool.rows(torch.tensor([4])).words(q.vocabulary) == [texts[4]]
    np.testing.assert_allclose(text_logps(q, pool).numpy(), -q.nll(texts)[0], atol=1e-4)
    # At a temperature near 0 the likeliest token has all the mass.
    one = sample(q, 1, temperature=0.01, seed=0)
    assert text_logps(q, one, temperature=0.01).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("block", [2, 5])
def test_many_particles_turn_samples_of_q_into_samples_of_psi(players, block):
    q, psi = players

    def ratio(pool):
        return log_ratio(psi, q)(pool).mean().item()

    of_q, of_psi = ratio(sample(q, 2000, seed=0)), ratio(sample(psi, 2000, seed=0))
    assert of_psi > of_q + 0.35
    assert ratio(sample_by_particles(q, psi, 1000, particles=1, block=block, seed=5)) == pytest.approx(of_q, abs=0.1)
    assert ratio(sample_by_particles(q, psi, 200, particles=24, block=block, seed=5)) == pytest.approx(of_psi, abs=0.15)


def test_particles_end_as_texts_do(players):
    q, psi = players
    pool = sample_by_particles(q, psi, 50, particles=4, block=3, seed=0)
    assert len(pool) == 50
    for ids, length in zip(pool.ids.tolist(), pool.lengths.tolist(), strict=True):
        assert EOS not in ids[1 : length - 1]
        assert ids[length - 1] == EOS or length == q.max_length + 2
        assert not any(ids[length:])
