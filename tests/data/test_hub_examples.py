"""Data sets of the Hub's form, from folders that the same library call opens."""

import json
from types import SimpleNamespace

import datasets
import pytest

from hf_gpt.data.hub_examples import check_dataset_options, read_hub_examples
from hf_gpt.errors import CorpusError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set of two splits in the library's own parquet form, which keeps the classes' names."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "mails"
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["ham", "spam"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
        }
    )
    for split, count in (("train", 5), ("validation", 2)):
        rows = [{"text": f"{split} {n}", "label": n % 2, "tags": [0, 1]} for n in range(count)]
        (path / "data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(
            path / "data" / f"{split}-00000-of-00001.parquet"
        )
    return str(path)


COLUMNS = {"text_column": "text", "label_column": "label"}


def test_splits_are_found_and_classes_have_names(folder):
    train, validation = read_hub_examples(folder, {**COLUMNS, "tags_column": "tags"})
    assert [dict(row) for row in validation] == [
        {"text": "validation 0", "label": "ham", "tags": ["O", "B-PER"]},
        {"text": "validation 1", "label": "spam", "tags": ["O", "B-PER"]},
    ]
    assert len(train) == 5 and train[4].position == f"{folder}, row 5"


def test_a_part_of_a_split_and_no_validation(folder, tmp_path):
    train, validation = read_hub_examples(folder, COLUMNS, train_split="train[:2]", validation_split="train[4:]")
    assert [row["text"] for row in train + validation] == ["train 0", "train 1", "train 4"]
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "train.jsonl").write_text(json.dumps({"text": "a", "label": 1}) + "\n")
    assert read_hub_examples(str(tmp_path / "alone"), COLUMNS)[1] is None


def test_translations_become_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "pairs").mkdir()
    row = {"translation": {"en": "a dog", "de": "ein Hund"}}
    (tmp_path / "pairs" / "train.jsonl").write_text(json.dumps(row) + "\n")
    train, _ = read_hub_examples(str(tmp_path / "pairs"), {"source_column": "en", "target_column": "de"})
    assert dict(train[0]) == {"en": "a dog", "de": "ein Hund"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_split": "trian"}, "trian"),
        ({"columns": {"label_column": "lable"}}, "did you mean label"),
        ({"validation_split": "test"}, "split test"),
    ],
)
def test_what_is_not_there_is_named(folder, change, message):
    columns = change.pop("columns", COLUMNS)
    with pytest.raises(CorpusError, match=message):
        read_hub_examples(folder, columns, **change)


def test_no_such_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(CorpusError, match="--dataset_name no/such-set"):
        read_hub_examples("no/such-set", COLUMNS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset_name": "a", "train_file": ["b"]}, "--train_file do not go together"),
        ({"validation_split": "test"}, "name it with --dataset_name"),
    ],
)
def test_options_that_do_not_go_together(given, message):
    names = ("dataset_name", "dataset_config_name", "validation_split", "train_file", "held_out_groups")
    with pytest.raises(CorpusError, match=message):
        check_dataset_options(SimpleNamespace(**{**dict.fromkeys(names), **given}))


def test_fine_tuning_on_a_data_set(folder, tmp_path, capsys):
    from hf_gpt.cli.finetune import main

    sizes = '{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}'
    options = ["--max_steps", "2", "--config_overrides", sizes, "--tokenizer_vocab_size", "300", "--use_cpu", "true"]
    output = tmp_path / "run"
    assert main(["--task", "classification", "--dataset_name", folder, "--output_dir", str(output), *options]) == 0
    assert json.loads((output / "model" / "config.json").read_text())["id2label"] == {"0": "ham", "1": "spam"}
    assert "5 examples to train on, 2 to validate on" in capsys.readouterr().out
