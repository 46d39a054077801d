"""The fine-tuning experiment: what may be pretrained on, what an arm is given, and the table."""

import json

import pytest

from eval.experiments.finetuning import __main__ as finetuning


@pytest.fixture
def data(tmp_path, monkeypatch):
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
    monkeypatch.setenv("HF_GPT_DATA", str(folder))
    return folder


def test_corpus_repeats_texts_and_leaves_out_held_out_sentences_in_any_spelling(data, tmp_path):
    path = tmp_path / "corpus.jsonl"
    files = {"classification/sst2/train.jsonl": ("text", 2), "translation/pairs.jsonl": (("en", "de"), 1)}
    finetuning.write_corpus(files, path)
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert texts == ["a warm film", "a warm film", "a dog", "ein Hund"]
    assert not path.with_suffix(".incomplete").exists()


def test_every_arm_runs_its_own_settings_and_pretrained_ones_share_a_model(data, tmp_path, monkeypatch):
    runs = {}
    monkeypatch.setattr(finetuning, "run", lambda command, settings, folder, seed: runs.update({folder.name: settings}))
    monkeypatch.setattr(finetuning, "write_corpus", lambda *_: None)
    options = ["--output_dir", str(tmp_path / "runs"), "--seeds", "3"]
    assert finetuning.main(["sst2", "trec", "multi30k", *options]) == 0
    english = tmp_path / "runs" / "pretraining_english-3" / "model"
    assert runs["sst2-pretrained-3"]["model_name_or_path"] == runs["trec-pretrained-3"]["model_name_or_path"] == english
    assert "model_name_or_path" not in runs["sst2-scratch-3"]
    assert runs["sst2-scratch-3"]["preset"] == "nano"
    train = [data / "classification/sst2/train.jsonl"]
    assert runs["sst2-scratch-3"]["train_file"] == train
    assert runs["multi30k-encoder_decoder-3"]["architecture"] == "encoder_decoder"
    assert runs["multi30k-from_decoder-3"]["model_name_or_path"].parent.name == "pretraining_captions-3"


def test_table_counts_pretraining_into_the_cost(tmp_path):
    for seed, score in ((0, 0.80), (1, 0.84)):
        for name, seconds in ((f"sst2-pretrained-{seed}", 60), (f"pretraining_english-{seed}", 120)):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "cost.json").write_text(json.dumps({"cpu_seconds": seconds}))
            (folder / "metrics.json").write_text(json.dumps({"eval_accuracy": score}))
    (tmp_path / "sst2-pretrained-2").mkdir()
    assert "| sst2 | pretrained | 0.82 | 0.82 | 0.8 to 0.84 | 2 | 3.0 |" in finetuning.summary(tmp_path)
