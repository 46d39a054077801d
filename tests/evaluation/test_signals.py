"""The judge of signals, pictures and sounds of the report, and the table of the experiment."""

import io
import json
import wave

import numpy as np
import pytest

from eval.experiments.modalities import digits
from hf_gpt.evaluation.media_classifier import MediaClassifier
from hf_gpt.reporting.media import image_grid, media_section, wav_bytes


def test_the_judge_knows_real_digits_and_is_fooled_by_none_of_noise():
    from sklearn.datasets import load_digits

    data = load_digits()
    names = [str(label) for label in data.target]
    held_out = np.arange(len(names)) % 5 == 0
    real, wanted = data.images[held_out], [name for name, held in zip(names, held_out, strict=True) if held]
    known = [name for name, held in zip(names, held_out, strict=True) if not held]
    judge = MediaClassifier().fit(list(data.images[~held_out]), known)
    assert judge.accuracy(list(real), wanted) > 0.98
    noise = np.random.default_rng(0).permuted(real.reshape(len(real), 64), axis=1).reshape(real.shape)
    assert judge.accuracy(list(noise), wanted) < 0.35


def test_the_judge_of_sounds_hears_pitch_at_any_length():
    def tone(frequency, count):
        return 0.3 * np.sin(2 * np.pi * frequency * np.arange(count) / 8000)

    judge = MediaClassifier().fit(
        [tone(f, n) for f in (300, 1500) for n in (900, 1200, 1500)], ["low"] * 3 + ["high"] * 3
    )
    assert judge.predict([tone(320, 2500), tone(1400, 800)]) == ["low", "high"]
    assert len(judge.predict([np.zeros(0)])) == 1


def test_pictures_and_sounds_are_what_went_in():
    from PIL import Image

    rows = [[np.array([[0.0, 1.0], [0.5, 0.0]])] * 2, [np.ones((2, 2))]]
    image = np.asarray(Image.open(io.BytesIO(image_grid(rows, low=0, high=1, side=6))))
    assert image.shape == (2 * 10 + 4, 2 * 10 + 4)
    assert image[4:7, 4:7].max() == 0 and image[4:7, 7:10].min() == 255 and image[8, 5] == 128
    # Where a row is short, and between images, is grey.
    assert set(np.unique(image[14:, 14:])) == {128}
    with wave.open(io.BytesIO(wav_bytes(np.array([0, 1, -1, 2]), 8000))) as file:
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 32767, -32767, 32767]
        assert file.getframerate() == 8000
    section = media_section("a", "A & B", "note", [("x < y", b"png")], [("s", b"wav")])
    assert "x &lt; y" in section.body and "data:image/png;base64,cG5n" in section.body and "d2F2" in section.body


def test_table_of_runs_that_are_done(tmp_path, monkeypatch):
    done = []

    def pretend(command, settings, folder, seed):
        done.append((command, settings, folder.name, seed))
        folder.mkdir(parents=True)
        score = 0.8 + seed / 100 + 0.2 * ("theo" in folder.name)
        (folder / "metrics.json").write_text(json.dumps({"eval_accuracy": score}))
        (folder / "cost.json").write_text(json.dumps({"cpu_seconds": 60.0 * (1 + seed)}))

    monkeypatch.setattr(digits, "run", pretend)
    monkeypatch.setenv("HF_GPT_DATA", str(tmp_path))
    digits.main(["speech", "--output_dir", str(tmp_path / "runs"), "--seeds", "0", "2"])
    command, settings, name, seed = done[2]
    assert (command, name, seed) == ("finetune", "speech_theo-2", 2) and len(done) == 4
    assert settings["train_file"] == [tmp_path / digits.SPEECH]
    assert settings["held_out_groups"] == ["theo"] and settings["config"] == "spoken_digits"
    digits.main(["adapted_speech", "--output_dir", str(tmp_path / "others"), "--seeds", "0"])
    command, settings, name, seed = done[-1]
    assert (name, settings["normalize_by_group"]) == ("adapted_speech_yweweler-0", True) and len(done) == 6
    assert len(digits.summary(tmp_path / "others").splitlines()) == 3
    heading, _, line = digits.summary(tmp_path / "runs").splitlines()
    names, found = ([cell.strip() for cell in row.strip("|").split("|")] for row in (heading, line))
    cells = dict(zip(names, found, strict=True))
    assert (cells["mean"], cells["least to most"], cells["seeds"]) == ("91.0%", "90.0% to 92.0%", "2")
    assert (cells["aim"], cells["core minutes"]) == ("85%", "2.0")


def test_recipe_hears_speakers_that_it_was_not_trained_on():
    from eval.experiments.common.data import data_folder

    if not (data_folder() / digits.SPEECH).exists():
        pytest.skip("the spoken digits are not in the data folder (HF_GPT_DATA)")
    from hf_gpt.data.examples import hold_out_groups, read_examples

    columns = {"media_column": "samples", "label_column": "digit", "group_column": "speaker"}
    train, test = hold_out_groups(
        read_examples([data_folder() / digits.SPEECH], columns), "speaker", digits.HELD_OUT_SPEAKERS
    )
    assert (len(train), len(test)) == (400, 200)
    assert not {row["speaker"] for row in train} & {row["speaker"] for row in test}
