"""Sentences that a linear teacher labels: what it learns from, what it says, and the command."""

import json

import numpy as np
import pytest

from eval.experiments import taught_sentences
from eval.experiments.review_texts import RatedSentence, Review
from eval.experiments.taught_sentences import WeightedSentence, distillation_steps, fit_teacher, taught_rows


TRAIN = [
    WeightedSentence(text, label)
    for label, words in ((1, ("warm", "funny", "lovely")), (0, ("dull", "cold", "awful")))
    for word in words
    for text in (f"a {word} film .", f"the film is {word} .")
]


def test_lessons_weigh_reviews_little_and_ratings_by_their_size():
    found = distillation_steps(
        [Review(["it is long .", "go ."], 1)],
        [RatedSentence("meh .", 0.4), RatedSentence("bad .", -1.0), RatedSentence("great .", 3.0)],
    )
    assert found == [
        WeightedSentence("it is long .", 1, 0.05),
        WeightedSentence("go .", 1, 0.05),
        WeightedSentence("bad .", 0, 0.2),
        WeightedSentence("great .", 1, 0.4),
    ]


def test_teacher_labels_what_it_is_sure_of():
    teacher = fit_teacher(TRAIN, least_sentences=1)
    texts = ["a warm and lovely film .", "such a dull awful thing .", "the film is a film .", "warm ."]
    assert taught_rows(teacher, texts, least_probability=0.6) == [
        {"text": texts[0], "label": 1},
        {"text": texts[1], "label": 0},
    ]


def test_weights_decide_between_sentences_that_contradict():
    teacher = fit_teacher([*TRAIN, WeightedSentence("a warm film .", 0, 1e-3)] * 2)
    assert teacher.predict(["a warm film ."]) == [1]


@pytest.fixture
def archives(monkeypatch):
    reviews = [
        Review(["a warm film .", "held out here ."], 1),
        Review(["an awful film , dull and cold ."], 0),
    ]
    rated = [RatedSentence("what a lovely film !", 3.0), RatedSentence("another one !", 2.0)]
    monkeypatch.setattr(taught_sentences, "read_reviews", lambda folder: reviews)
    monkeypatch.setattr(taught_sentences, "read_rated_sentences", lambda folder: rated)


def test_command_labels_sentences_without_those_that_are_tested_on(archives, tmp_path, capsys):
    files = {
        "train": [{"text": item.text, "label": item.label} for item in TRAIN] * 4,
        "dev": [{"text": "held out here", "label": 1}],
        "test": [{"text": "Another one.", "label": 0}],
        "further": [{"text": "a funny and lovely film"}, {"text": "another one"}],
    }
    paths = {name: tmp_path / f"{name}.jsonl" for name in files}
    for name, rows in files.items():
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "runs" / "taught.jsonl"
    held_out = ["--held_out", str(paths["dev"]), str(paths["test"])]
    command = ["archives", str(output), "--train", str(paths["train"]), *held_out, "--texts", str(paths["further"])]
    assert taught_sentences.main(command) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows == [
        {"text": "a warm film .", "label": 1},
        {"text": "an awful film , dull and cold .", "label": 0},
        {"text": "what a lovely film !", "label": 1},
        {"text": "a funny and lovely film", "label": 1},
    ]
    assert np.load(output.with_name("taught-dev.npy")).shape == (1,)
    printed = capsys.readouterr().out
    assert "3 sentences of the archives dropped" not in printed and "2 sentences of the archives dropped" in printed
    assert "the teacher alone on dev.jsonl" in printed
