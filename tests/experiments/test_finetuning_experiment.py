"""The fine-tuning experiment: what may be pretrained on, what an arm is given, and the table."""

import json

import pytest

from eval.experiments import finetuning


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    rows = {
        "classification/sst2/train.jsonl": [{"text": "a warm film"}, {"text": "Held OUT, here!"}],
        "classification/sst2/dev.jsonl": [{"text": "held out here"}],
        "classification/sst2/test.jsonl": [{"text": "another"}],
        "classification/trec/test.jsonl": [{"text": "what ?"}],
        "translation/pairs.jsonl": [{"en": "a dog", "de": "ein Hund"}],
    }
    for name, found in rows.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def test_corpus_repeats_texts_and_leaves_out_held_out_sentences_in_any_spelling(data, tmp_path):
    path = tmp_path / "corpus.jsonl"
    files = {"classification/sst2/train.jsonl": ("text", 2), "translation/pairs.jsonl": (("en", "de"), 1)}
    finetuning.write_corpus(files, data, path)
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert texts == ["a warm film", "a warm film", "a dog", "ein Hund"]
    assert not path.with_suffix(".incomplete").exists()


def test_every_arm_runs_its_own_settings_and_pretrained_ones_share_a_model(data, tmp_path, monkeypatch):
    runs = {}
    monkeypatch.setattr(finetuning, "run", lambda command, settings, folder, seed: runs.update({folder.name: settings}))
    monkeypatch.setattr(finetuning, "write_corpus", lambda *_: None)
    monkeypatch.setattr(finetuning.polarity_words, "read_ratings", lambda *_: {"warm": 2.0, "another": -2.0})
    options = ["--data", str(data), "--output", str(tmp_path / "runs"), "--seeds", "3"]
    assert finetuning.main(["sst2", "trec", "multi30k", *options, "--set", "max_train_samples=9"]) == 0
    english = tmp_path / "runs" / "pretraining_english-3" / "model"
    assert runs["sst2-pretrained-3"]["model_name_or_path"] == runs["trec-pretrained-3"]["model_name_or_path"] == english
    assert "model_name_or_path" not in runs["sst2-scratch-3"]
    assert runs["sst2-scratch-3"]["preset"] == "nano"
    train = [data / "classification/sst2/train.jsonl"]
    words = tmp_path / "runs" / "rated_words.jsonl"
    assert runs["sst2-scratch-3"]["train_file"] == train and runs["sst2-words-3"]["train_file"] == [*train, words]
    # "another" is a sentence of the test file.
    assert words.read_text() == '{"text": " warm", "label": 1}\n'
    assert runs["multi30k-encoder_decoder-3"]["architecture"] == "encoder_decoder"
    assert runs["multi30k-from_decoder-3"]["model_name_or_path"].parent.name == "pretraining_captions-3"
    assert all(run["max_train_samples"] == "9" for name, run in runs.items() if "pretraining" not in name)


def test_table_counts_pretraining_into_the_cost(tmp_path):
    for seed, score in ((0, 0.80), (1, 0.84)):
        for name, seconds in ((f"sst2-pretrained-{seed}", 60), (f"pretraining_english-{seed}", 120)):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "cost.json").write_text(json.dumps({"cpu_seconds": seconds}))
            (folder / "metrics.json").write_text(json.dumps({"eval_accuracy": score}))
    (tmp_path / "sst2-pretrained-2").mkdir()
    assert "| sst2 | pretrained | 0.82 | 0.8 to 0.84 | 2 | 0.82 | 3.0 |" in finetuning.summary(tmp_path)


def test_reviews_are_learnt_from_a_teacher_first_and_only_where_there_are_archives(data, tmp_path, monkeypatch):
    runs, modules = {}, {}
    monkeypatch.setattr(finetuning, "run", lambda command, settings, folder, seed: runs.update({folder.name: settings}))
    monkeypatch.setattr(finetuning, "run_module", lambda words, folder: modules.update({folder.name: words}))
    options = ["sst2", "--data", str(data), "--output", str(tmp_path / "runs"), "--seeds", "3"]
    with pytest.raises(SystemExit, match="--archives"):
        finetuning.main([*options, "--arms", "reviews"])
    assert finetuning.main([*options, "--arms", "reviews", "--archives", "archives"]) == 0
    folder, train = data / "classification/sst2", data / "classification/sst2/train.jsonl"
    words = modules["taught_sst2"]
    assert words[words.index("--held_out") :][:3] == ["--held_out", folder / "dev.jsonl", folder / "test.jsonl"]
    taught = tmp_path / "runs" / "taught_sst2.jsonl"
    assert words[2] == taught and runs["taught_sst2-3"]["train_file"] == [taught, train, train]
    assert runs["sst2-reviews-3"]["model_name_or_path"] == tmp_path / "runs" / "taught_sst2-3" / "model"
    assert runs["sst2-reviews-3"]["train_file"] == [train]


def test_arm_of_reviews_is_left_out_without_archives(data, tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(finetuning, "run", lambda command, settings, folder, seed: runs.append(folder.name))
    monkeypatch.setattr(finetuning, "write_corpus", lambda *_: None)
    monkeypatch.setattr(finetuning.polarity_words, "read_ratings", lambda *_: {"warm": 2.0})
    finetuning.main(["sst2", "--data", str(data), "--output", str(tmp_path / "runs"), "--seeds", "0"])
    assert "sst2-words-0" in runs and "sst2-reviews-0" not in runs


def test_table_counts_teacher_and_first_stage_into_the_cost(tmp_path):
    for name, seconds in (("sst2-reviews-0", 60), ("taught_sst2-0", 120), ("taught_sst2", 180)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cost.json").write_text(json.dumps({"cpu_seconds": seconds}))
        (tmp_path / name / "metrics.json").write_text(json.dumps({"eval_accuracy": 0.5}))
    assert "| sst2 | reviews | 0.5 | 0.5 to 0.5 | 1 | 0.82 | 6.0 |" in finetuning.summary(tmp_path)
