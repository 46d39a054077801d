"""The resampling experiment: gains, the table, results that outlive a stop, and a small run."""

import json

import pytest
import torch

from eval.experiments.common.results import Results
from eval.experiments.common.words import encode, sample_words, words_of
from eval.experiments.resampling import __main__ as resampling
from eval.experiments.resampling.report import gain, write_plot, write_table
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import WordVocabulary
from hf_gpt.generation.scoring.log_ratio import text_logps


def _points(scores: dict[str, tuple[float, float]], seeds: tuple[int, ...] = (0,)) -> dict[str, dict[str, float]]:
    return {
        f"{seed}/{name}": {"lm_score": quality, "reverse_lm_score": reverse, "distinct_share": 1.0}
        for seed in seeds
        for name, (quality, reverse) in scores.items()
    }


@pytest.mark.parametrize(
    ("reverse", "quality", "expected"),
    # More diverse than the curve gets: held against its most diverse point.
    [(4.5, 2.2, 0.3), (5.5, 2.0, -0.25), (3.5, 2.9, 0.1), (6.5, 1.0, "beyond")],
)
def test_gain_by_hand_over_what_is_not_beaten_in_both(reverse, quality, expected):
    curve = {"temperature 1": (3.0, 4.0), "temperature 0.9": (2.0, 5.0), "temperature 0.8": (1.5, 6.0)}
    points = _points({**curve, "temperature 0.7": (3.1, 4.2), "ratio: best of 2": (quality, reverse)})
    found = gain(points, 0, "ratio: best of 2", ("temperature ",))
    assert found == (expected if isinstance(expected, str) else pytest.approx(expected))
    assert gain(points, 1, "ratio: best of 2", ("temperature ",)) == "not measured"


def test_report_names_what_passes(tmp_path):
    scores = {
        "real": (3.0, 3.5),
        "temperature 1": (3.0, 4.0),
        "temperature 0.8": (2.0, 5.0),
        "ratio: resample of 8": (2.2, 4.5),
        "ratio: best of 8": (2.45, 4.5),
        "larger model T=1": (2.4, 4.2),
    }
    points = _points(scores, (0, 1))
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


def test_real_texts_and_samples_are_texts_alike():
    vocabulary = WordVocabulary([list("abcde")])
    model = WordModel(vocabulary, 12, 16, 1, seed=0)
    texts = [list("abcdeabcdeabcde"[start : start + length]) for start in range(3) for length in range(13)]
    real = encode(texts, vocabulary, 12)
    assert words_of(real, vocabulary) == texts and words_of(real.rows(torch.tensor([4])), vocabulary) == [texts[4]]
    torch.testing.assert_close(
        text_logps(model.model, real).double(), torch.from_numpy(-model.nll(texts)[0]), atol=1e-4, rtol=0
    )
    samples = sample_words(model, 6, 0, temperature=0.9)
    assert words_of(sample_words(model, 3, 0, temperature=0.9), vocabulary) == words_of(samples, vocabulary)[:3]


def test_a_small_run_has_every_way_and_is_not_repeated(tmp_path, monkeypatch, capsys):
    lines = [f"{who} {what} a {thing} ." for who in ("he", "she") for what in ("has", "sees") for thing in "abcdefgh"]
    for name in ("image_coco.txt", "test_coco.txt"):
        path = tmp_path / "data" / "lm" / "coco_captions" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines * 3), encoding="utf-8")
    monkeypatch.setenv("HF_GPT_DATA", str(tmp_path / "data"))
    command = ["coco", "--seeds", "0", "--num_samples", "20", "--epochs", "1", "--candidates", "2", "8"]
    command += ["--particles", "2", "--density", "16", "1", "--output_dir", str(tmp_path / "run")]
    assert resampling.main(command) == 0
    table = (tmp_path / "run" / "coco" / "results.md").read_text(encoding="utf-8")
    for name in (
        "ratio: resample of 2",
        "ratio: best of 8",
        "ratio + classifier: resample of 8",
        "particles: 2 at T=1",
    ):
        assert f"| {name} |" in table
    assert "| larger model + classifier: resample of 16 |" in table and "discriminator ratio + classifier: AUC" in table
    monkeypatch.setattr(resampling.Seed, "_sample", None)
    capsys.readouterr()
    assert resampling.main(command) == 0
    assert table.strip() in capsys.readouterr().out
