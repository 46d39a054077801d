"""`hf-gpt finetune --streaming`: the rows of examples in memory, a position that is taken up, and clear errors."""

import csv
import itertools
import json
import re

import datasets
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from hf_gpt.cli.finetune import main
from hf_gpt.data.examples import read_examples, sample_file
from hf_gpt.data.streaming import one_pass
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.settings import RECIPES
from hf_gpt.training.streamed_examples import ExampleStream, read_streamed
from hf_gpt.training.tasks import RECIPES_OF_TASKS, TASKS, make_task
from hf_gpt.training.training_arguments import HfGptTrainingArguments


TEXT_TASKS = [task for task in TASKS if task not in RECIPES_OF_TASKS]
COLUMNS = {
    "translation": {"source_column": "en", "target_column": "de"},
    "summarization": {"source_column": "dialogue", "target_column": "summary"},
}
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def open_stream(task_name, tmp_path, *, max_steps=5, epochs=1.0, **options):
    """Task, stream of examples, number of examples and validation examples, as the command opens them."""
    valid = tmp_path / "valid.jsonl"
    if valid.exists() or "dataset_name" not in options:
        options = {"validation_file": [str(valid if valid.exists() else sample_file(task_name))], **options}
    task = make_task(TaskArguments(task=task_name, streaming=True, **{**COLUMNS.get(task_name, {}), **options}))
    args = HfGptTrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=max_steps,
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        eval_strategy="epoch",
    )
    return task, *read_streamed(task, args), args


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def sentiment(count):
    return [
        {"text": f"film {number} was {('bad', 'fine')[number % 2]} é", "label": ("no", "yes")[number % 2]}
        for number in range(count)
    ]


@pytest.fixture
def files(tmp_path):
    """The same examples in each form, and others to validate on."""
    rows = sentiment(24)
    write(tmp_path / "rows.jsonl", rows)
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "label", "text"])
        writer.writeheader()
        writer.writerows({"id": number, **row} for number, row in enumerate(rows))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet", batch_size=7)
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "hub" / "train-00000.parquet", batch_size=7)
    write(tmp_path / "valid.jsonl", sentiment(4))
    return tmp_path


@pytest.mark.parametrize("task_name", TEXT_TASKS)
def test_rows_are_those_in_memory(task_name, tmp_path, corpus_text):
    task, documents, _, validation, _ = open_stream(task_name, tmp_path, shuffle_buffer_size=0)
    documents.window_size = 5
    tokenizer = train_tokenizer([corpus_text], 320)
    task.prepare_tokenizer(tokenizer)
    other = make_task(task.args)
    examples = read_examples([sample_file(task_name)], other.columns)
    other.learn(examples, [])
    assert list(validation) == examples
    expected = list(other.encode(examples, tokenizer, is_training=True))
    columns = [name for name in expected[0] if name != "example"]
    found = list(itertools.islice(ExampleStream(documents, task, tokenizer), 2 * len(expected)))
    for row, wanted in zip(found, [*expected, *expected], strict=True):
        assert [row[name] for name in columns] == [wanted[name] for name in columns]


@pytest.mark.parametrize("form", ["rows.jsonl", "rows.csv", "rows.parquet", "hub"])
def test_a_position_is_taken_up_in_every_form(form, files, tokenizer):
    source = {"train_file": [str(files / form)]}
    if form == "hub":
        source = {"dataset_name": str(files / form), "class_names": ["no", "yes"]}
    task, documents, _, _, _ = open_stream("classification", files, shuffle_buffer_size=5, **source)

    def make():
        return ExampleStream(documents, task, tokenizer, shuffle_seed=1)

    stream, rows, states = make(), [], []
    for number, row in enumerate(itertools.islice(stream, 60)):
        rows.append(row["input_ids"])
        states.append(json.loads(json.dumps(stream.state_dict(number))))
    assert sorted(rows[:24]) == sorted(rows[24:48]) and rows[:24] != rows[24:48]
    for number in (0, 3, 23, 24, 40):
        again = make()
        again.load_state_dict(states[number])
        assert [row["input_ids"] for row in itertools.islice(again, 12)] == rows[number : number + 12]


def test_shuffling_is_within_the_buffer_and_by_seed(files, tokenizer):
    task, documents, _, _, _ = open_stream(
        "classification", files, train_file=[str(files / "rows.jsonl")], shuffle_buffer_size=8
    )
    orders = []
    for seed in (None, 1, 1, 2):
        stream = ExampleStream(documents, task, tokenizer, seed)
        texts = [tokenizer.decode(row["input_ids"]) for row in itertools.islice(stream, 24)]
        orders.append([int(re.search(r"film (\d+)", text)[1]) for text in texts])
    kept, first, same, other = orders
    assert kept == list(range(24)) and first == same and first != other
    for begin in (0, 8, 16):
        window = first[begin : begin + 8]
        assert sorted(window) == list(range(begin, begin + 8)) != window


def test_no_more_is_read_than_the_buffer_holds(tmp_path, tokenizer):
    # Of a file with a fault far behind, the beginning is trained on.
    write(tmp_path / "rows.jsonl", [*sentiment(40), {"text": 1, "label": "no"}])
    options = {"train_file": [str(tmp_path / "rows.jsonl")], "class_names": ["no", "yes"], "shuffle_buffer_size": 8}
    task, documents, _, _, _ = open_stream(
        "classification", tmp_path, validation_file=[write(tmp_path / "v.jsonl", sentiment(2))], **options
    )
    stream = iter(ExampleStream(documents, task, tokenizer, 0))
    assert len(list(itertools.islice(stream, 33))) == 33 and documents.state["positions"][0][1] == 40
    with pytest.raises(CorpusError, match=r"rows\.jsonl, line 41: column 'text' must be a text"):
        list(itertools.islice(stream, 9))


def test_classes_and_steps_by_a_pass_over_the_files(files):
    names = [str(files / "rows.jsonl"), str(files / "rows.csv")]
    task, documents, count, _, args = open_stream("classification", files, max_steps=-1, epochs=1.5, train_file=names)
    assert task.names == ["no", "yes"] and count == 48 and args.max_steps == 18
    assert (args.eval_strategy, args.eval_steps) == ("steps", 12)
    assert len(list(one_pass(documents))) == 48
    # What needs no pass has none.
    assert open_stream("classification", files, train_file=names, class_names=["no", "yes"])[2] is None
    (files / "valid.jsonl").unlink()
    assert open_stream("closed_book_qa", files)[2] is None


def test_a_data_set_says_its_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["spam", "ham"])}
    )
    (tmp_path / "mails" / "data").mkdir(parents=True)
    for split, count in (("train", 9), ("validation", 4)):
        rows = datasets.Dataset.from_list([{"text": f"{split} {n}", "label": n % 2} for n in range(count)], features)
        rows.to_parquet(tmp_path / "mails" / "data" / f"{split}-00000-of-00001.parquet")
    folder = str(tmp_path / "mails")
    task, documents, count, validation, _ = open_stream(
        "classification", tmp_path, dataset_name=folder, max_eval_samples=3
    )
    assert task.names == ["ham", "spam"] and count is None
    assert [row["label"] for row in validation] == ["spam", "ham", "spam"]
    assert [row["text"] for row in one_pass(documents)] == [f"train {n}" for n in range(9)]
    with pytest.raises(ConfigError, match="needs --max_steps: counting"):
        open_stream("classification", tmp_path, dataset_name=folder, max_steps=-1)
    with pytest.raises(CorpusError, match=r"--dataset_name: no file and no data set .* with a split named trian"):
        open_stream("classification", tmp_path, dataset_name=folder, train_split="trian")


def test_classes_that_cannot_be_known(files):
    with pytest.raises(ConfigError, match=r"known only when all of it has been read\. Name them with --class_names"):
        open_stream("classification", files, dataset_name=str(files / "hub"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_file": None}, "needs --validation_file"),
        ({"max_train_samples": 3}, "--max_train_samples does not go with --streaming"),
        ({"held_out_groups": ["a"], "group_column": "g"}, "--held_out_groups does not go with"),
        ({"shuffle_buffer_size": -1}, "must not be negative"),
        ({"train_file": ["rows.json"]}, "no such file"),
        ({"task": "question_answering", "max_steps": -1}, "question_answering needs --max_steps"),
        ({"task": "image_classification"}, "is for tasks on texts"),
    ],
)
def test_what_cannot_be_streamed(options, message, tmp_path):
    with pytest.raises((ConfigError, CorpusError), match=message):
        open_stream(options.pop("task", "classification"), tmp_path, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b"', "a.jsonl, line 2: "),
        ("a.jsonl", '{"text": "a", "label": 0}\n[1]', "a.jsonl, line 2: a list, not an object of columns"),
        (
            "a.jsonl",
            '{"text": "a", "label": 0}\n{"text": "b", "lable": 1}',
            "line 2: no column 'label'; did you mean lable",
        ),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": " ", "label": 1}', "line 2: column 'text' must be a text"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": 1.5}', "line 2: column 'label' is 1.5, which"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": "x"}', "line 2: column 'label' is 'x', which"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "\\ud800", "label": 1}', "line 2: not UTF-8"),
        ("a.csv", "text,label\na,0\nb", "a.csv, row 2: 1 fields instead of 2"),
    ],
)
def test_a_malformed_row_is_named_or_skipped(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    write(tmp_path / "valid.jsonl", [{"text": "a", "label": 0}])
    options = {"train_file": [str(tmp_path / name)], "class_names": ["0", "1"]}
    with pytest.raises(CorpusError) as error:
        list(one_pass(open_stream("classification", tmp_path, **options)[1]))
    assert message in str(error.value) and str(error.value).endswith("by --malformed_rows skip.")
    documents = open_stream("classification", tmp_path, malformed_rows="skip", **options)[1]
    assert [row["text"] for row in one_pass(documents)] == ["a"]


@pytest.fixture
def recipe(files):
    """Writes a recipe for a run of seconds; returns its path."""

    def write_recipe(folder, **changes):
        settings = yaml.safe_load((RECIPES / "classification.yaml").read_text())
        settings |= {
            "preset": None,
            "config_overrides": TINY,
            "tokenizer_vocab_size": 300,
            "train_file": [str(files / "rows.jsonl")],
            "validation_file": [str(files / "valid.jsonl")],
            "streaming": True,
            "per_device_train_batch_size": 4,
            "max_steps": 9,
            "logging_steps": 1,
            "output_dir": str(files / folder),
        }
        path = files / f"{folder}.yaml"
        path.write_text(yaml.safe_dump({**settings, **changes}))
        return str(path)

    return write_recipe


def weights(run):
    return load_file(run / "model" / "model.safetensors")


def assert_equal(run, other):
    expected = weights(other)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(run).items())


def test_the_command_equals_one_in_memory(recipe, files, capsys):
    changes = {"num_train_epochs": 1.5, "max_steps": -1, "train_sampling_strategy": "sequential"}
    assert main(["--config", recipe("streamed", **changes, shuffle_buffer_size=0)]) == 0
    output = capsys.readouterr().out
    assert "24 streamed examples to train on, 4 to validate on" in output and "9 steps of 4 rows: 1.5 passes" in output
    assert main(["--config", recipe("memory", **changes, streaming=False)]) == 0
    assert_equal(files / "streamed", files / "memory")
    log = json.loads((files / "streamed" / "metrics.json").read_text())
    assert log["eval_accuracy"] >= 0 and "24 streamed examples" in (files / "streamed" / "report.html").read_text()


def test_a_fault_in_the_middle_costs_nothing(recipe, files, capsys):
    changes = {
        "class_names": ["no", "yes"],
        "shuffle_buffer_size": 4,
        "config_overrides": {**TINY, "hidden_dropout": 0.1},
        "tokenizer_name": str(files / "straight" / "model"),
    }
    assert main(["--config", recipe("straight", **{**changes, "tokenizer_name": None})]) == 0
    lines = (files / "rows.jsonl").read_text().splitlines()
    (files / "rows.jsonl").write_text("\n".join([*lines[:17], "{", *lines[18:]]))
    path = recipe("stopped", **changes)
    assert main(["--config", path]) == 2
    error = capsys.readouterr().err
    assert "rows.jsonl, line 18: " in error and "stopped at step 3; checkpoint-3 is kept" in error
    (files / "rows.jsonl").write_text("\n".join(lines))
    assert main(["--config", path, "--resume_from_checkpoint"]) == 0
    assert_equal(files / "stopped", files / "straight")
    (files / "rows.jsonl").write_text("\n".join([*lines[:17], "{", *lines[18:]]))
    assert main(["--config", recipe("skipped", **changes, malformed_rows="skip")]) == 0
    assert "streamed examples (2 malformed rows skipped)" in (files / "skipped" / "report.html").read_text()


def test_dry_run(recipe, files, capsys):
    assert main(["--config", recipe("run", max_steps=1000), "--dry_run"]) == 0
    output = capsys.readouterr().out
    assert "1,000 steps of 4 rows" in output and "Nothing was trained" in output and not (files / "run").exists()


def test_an_encoder_decoder_streams(recipe, files):
    rows = [{"en": f"dog {n}", "de": f"Hund {n}"} for n in range(12)]
    changes = {"task": "translation", "architecture": "encoder_decoder", "source_column": "en", "target_column": "de"}
    changes |= {
        "train_file": [write(files / "pairs.jsonl", rows)],
        "validation_file": [write(files / "v.jsonl", rows[:3])],
    }
    assert main(["--config", recipe("run", **changes, max_steps=4, max_new_tokens=4)]) == 0
    assert transformers.AutoModelForSeq2SeqLM.from_pretrained(files / "run" / "model") is not None
