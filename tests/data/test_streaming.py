import collections
import csv
import json

import datasets
import numpy as np
import pytest
import torch
import yaml

from hf_gpt.data import sources, streaming, text_files
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.data.sources import Malformed, open_source
from hf_gpt.data.streaming import DocumentStream, RowStream, one_pass
from hf_gpt.errors import CheckpointError, ConfigError, CorpusError
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


TEXTS = [f'Document {number}, "quoted"\nwith é and {"word " * (number % 7)}' for number in range(40)]


@pytest.fixture
def files(tmp_path):
    """The same documents in each form."""
    rows = [{"text": text} for text in TEXTS]
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows({"id": number, **row} for number, row in enumerate(rows))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet", batch_size=15)
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "hub" / "train-00000.parquet", batch_size=15)
    return tmp_path


FORMS = ["a.txt", "a.jsonl", "a.csv", "a.parquet", "hub"]


def open_file(path, **options):
    return open_source(str(path), document_separator="\n\n", **options)


def documents_of(stream, count):
    found = []
    for window in stream.windows():
        found += window
        if len(found) >= count:
            return found[:count]
    return found


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_documents_and_goes_on_from_any_place(files, form):
    source = open_file(files / form)
    items = list(source.read(None))
    assert [text for text, _ in items] == TEXTS
    for index in (0, 1, 14, 15, 38, 39):
        place = json.loads(json.dumps(items[index][1]))
        assert [text for text, _ in source.read(place)] == TEXTS[index + 1 :]


@pytest.mark.parametrize("form", FORMS[:-1])
@pytest.mark.parametrize("strategy", ["best_fit", "sequential"])
def test_rows_are_those_in_memory(files, tokenizer, form, strategy, monkeypatch):
    monkeypatch.setattr(streaming, "PACKING_WINDOW", 16)
    monkeypatch.setattr("hf_gpt.data.packed_dataset.PACKING_WINDOW", 16)
    documents = read_corpus([str(files / form)], document_separator="\n\n")
    expected = tokenize_and_pack(documents, tokenizer, 32, strategy=strategy)
    stream = RowStream(DocumentStream([open_file(files / form)]), tokenizer, 32, strategy=strategy)
    # The second pass is as the first.
    for rows, row in zip(stream, [*expected, *expected], strict=False):
        assert all(np.array_equal(rows[name], row[name]) for name in row)
    assert len(expected) > 20


def test_a_position_is_taken_up_anywhere(files, tokenizer, monkeypatch):
    monkeypatch.setattr(streaming, "PACKING_WINDOW", 12)
    names = ["a.txt", "a.parquet", "hub"]

    def make(weights=None):
        opened = [open_file(files / name) for name in names]
        return RowStream(DocumentStream(opened, weights), tokenizer, 32, shuffle_seed=3)

    for weights in (None, [3.0, 1.0, 1.0]):
        stream, expected, states = make(weights), [], []
        for number, row in enumerate(stream):
            expected.append(row["input_ids"])
            # As a loader that reads ahead asks.
            states.append(json.loads(json.dumps(stream.state_dict(max(0, number - 2)))))
            if number == 150:
                break
        for number in (0, 1, 30, 75, 149):
            again = make(weights)
            again.load_state_dict(states[number])
            first = max(0, number - 2)
            for row, ids in zip(again, expected[first : first + 40], strict=False):
                assert np.array_equal(row["input_ids"], ids)


def test_reading_goes_on_without_reading_what_was_read(files, tokenizer, monkeypatch):
    monkeypatch.setattr(streaming, "PACKING_WINDOW", 5)
    source = open_file(files / "a.jsonl")
    places = []

    def spy(place):
        places.append(place)
        return source.read(place)

    stream = RowStream(DocumentStream([sources.Source("a", spy, None)]), tokenizer, 32)
    for number, _ in enumerate(stream):
        if number == 20:
            break
    state = stream.state_dict(20)
    stream.load_state_dict(state)
    next(iter(stream))
    assert places[-1] == state["documents"]["positions"][0] and places[-1][1] >= 5


def test_weights_are_shares_of_the_text(tmp_path):
    for name, length in (("a", 10), ("b", 40)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": name * length}) + "\n" for _ in range(9)))
    stream = DocumentStream([open_source(str(tmp_path / f"{name}.jsonl")) for name in "ab"], [1, 3])
    stream.windows().__next__()
    first, second = stream.state["characters"]
    assert second / (first + second) == pytest.approx(0.75, abs=0.01)
    # A new tokenizer learns from one pass, which is over when each source has ended.
    assert collections.Counter(text[0] for text in one_pass(stream)) == {"a": 13, "b": 9}
    with pytest.raises(ConfigError, match="for each of the 2 files"):
        DocumentStream(stream.sources, [1.0])


def test_long_texts_are_parted_at_line_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_DOCUMENT_BYTES", 100)
    monkeypatch.setattr(text_files, "_CHUNK_BYTES", 30)
    text = "".join(f"line {number} é\n" for number in range(60)) + "é" * 300
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    parts = [part for part, _ in open_source(str(tmp_path / "long.txt")).read(None)]
    assert "".join(parts) == text and max(len(part.encode()) for part in parts) <= 130
    assert parts[0].endswith("\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "one"}\n{"text": "tw\n{"text": "three"}\n', "a.jsonl, line 2: "),
        ("a.jsonl", b'{"text": "one"}\n[1]\n{"text": "three"}\n', "a.jsonl, line 2: a list"),
        ("a.jsonl", b'{"text": "one"}\n{"texts": "two"}\n{"text": "three"}\n', "did you mean texts?"),
        ("a.jsonl", b'{"text": "one"}\n{"text": 2}\n{"text": "three"}\n', "'text' is a int, not text"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "\xff"}\n{"text": "three"}\n', "line 2"),
        ("a.csv", b"text,id\none,1\ntwo\nthree,3\n", "a.csv, row 2: 1 fields instead of 2"),
        ("a.csv", b"text,id\none,1\n\xfftwo,2\nthree,3\n", "row 2: 'text' is not UTF-8"),
        ("a.txt", b"one\n\ntw\xff\n\nthree", "byte 0xff at offset 7"),
    ],
)
def test_a_malformed_row_is_named_or_skipped(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    source = open_file(tmp_path / name)
    with pytest.raises(CorpusError) as error:
        next(DocumentStream([source]).windows())
    assert message in str(error.value) and "--malformed_rows skip" in str(error.value)
    stream = DocumentStream([source], skip_malformed=True)
    assert next(stream.windows()) == ["one", "three"] and stream.state["skipped"] == 1
    assert sum(isinstance(item, Malformed) for item, _ in source.read(None)) == 1


def test_sources_that_cannot_be_read(tmp_path):
    (tmp_path / "a.csv").write_text("txt\nhello\n")
    (tmp_path / "a.parquet").write_text("no")
    (tmp_path / "blank.txt").write_text(" \n\n ")
    for name, message in (("a.csv", "did you mean txt"), ("a.parquet", "as parquet"), ("blank.txt", "no text found")):
        with pytest.raises(CorpusError, match=message):
            next(DocumentStream([open_file(tmp_path / name)]).windows())
    with pytest.raises(CorpusError, match="no such file"):
        open_source("nothing.jsonl")


@pytest.fixture
def make_trainer(files, tokenizer, make_model, monkeypatch):
    monkeypatch.setattr(streaming, "PACKING_WINDOW", 12)

    def make(folder, **overrides):
        documents = DocumentStream([open_file(files / name) for name in ("a.jsonl", "a.csv")], [1, 2])
        settings = {
            "output_dir": str(files / folder),
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_steps": 8,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_steps": 3,
            "save_total_limit": 5,
            "disable_tqdm": True,
        }
        return HfGptTrainer(
            model=make_model(hidden_dropout=0.1),
            args=HfGptTrainingArguments(**{**settings, **overrides}),
            train_dataset=RowStream(documents, tokenizer, 32, shuffle_seed=0),
            processing_class=tokenizer,
            data_collator=PackedRowsCollator(),
        )

    return make


@pytest.mark.parametrize("checkpoint", ["checkpoint-3", "checkpoint-6"])
def test_resume_equals_a_straight_run_bit_for_bit(make_trainer, files, checkpoint):
    straight = make_trainer("straight")
    straight.train()
    resumed = make_trainer("resumed")
    resumed.train(resume_from_checkpoint=str(files / "straight" / checkpoint))
    expected = straight.model.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in resumed.model.state_dict().items())
    count = 8 - int(checkpoint[-1])
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (straight, resumed)]
    assert losses[0][-count:] == losses[1][-count:] and resumed.state.global_step == 8

    # A run that starts anew reads from the beginning, also with the same trainer.
    resumed.train_dataset.rewind()
    assert resumed.train_dataset.state_dict(0)["documents"]["positions"] == [None, None]


def test_streaming_settings_that_cannot_work(make_trainer, files):
    with pytest.raises(ConfigError, match="dataloader_num_workers"):
        make_trainer("run", dataloader_num_workers=1)
    trainer = make_trainer("plain", max_steps=3)
    trainer.train()
    (files / "plain" / "checkpoint-3" / "stream_position.json").unlink()
    with pytest.raises(CheckpointError, match=r"no stream_position\.json"):
        make_trainer("other").train(resume_from_checkpoint=str(files / "plain" / "checkpoint-3"))


def test_the_command_streams(tmp_path, corpus_text, capsys):
    from hf_gpt.cli.main import main

    (tmp_path / "valid.txt").write_text(corpus_text[:1000])
    rows = [json.dumps({"text": part}) for part in corpus_text.split("\n\n")]
    (tmp_path / "train.jsonl").write_text("\n".join([*rows[:5], "{", *rows[5:]]))
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    recipe = {
        "train_file": [str(tmp_path / "train.jsonl")],
        "validation_file": [str(tmp_path / "valid.txt")],
        "streaming": True,
        "malformed_rows": "skip",
        "config_overrides": tiny,
        "tokenizer_vocab_size": 300,
        "max_length": 32,
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "sample_max_new_tokens": 4,
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    argv = ["pretrain", "--config", str(tmp_path / "recipe.yaml")]
    assert main([*argv, "--malformed_rows", "stop"]) == 2
    assert "train.jsonl, line 6" in capsys.readouterr().err
    assert main([*argv, "--max_steps", "-1"]) == 2
    assert "--streaming needs --max_steps" in capsys.readouterr().err
    assert main(argv) == 0
    assert "streamed" in capsys.readouterr().out
    assert "malformed rows skipped" in (tmp_path / "run" / "report.html").read_text()


def test_a_file_without_an_ending_in_a_folder_is_no_data_set(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text8").write_text("a text")
    monkeypatch.chdir(tmp_path)
    assert [text for text, _ in open_source("data/text8").read(None)] == ["a text"]


def test_a_packed_file_is_not_streamed(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"gunzip -k a\.jsonl\.gz"):
        open_source(str(tmp_path / "a.jsonl.gz"))
