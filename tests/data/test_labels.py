"""A class is the same class in every format of a file, streamed or not."""

import csv
import json
from functools import partial

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_gpt.data.examples import Example, read_examples
from hf_gpt.data.hub_examples import read_hub_examples
from hf_gpt.data.labels import class_names, label_name, label_number
from hf_gpt.data.sources import open_dataset, open_table
from hf_gpt.data.streaming import DocumentStream, one_pass
from hf_gpt.errors import CorpusError
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.settings import load_settings, read_recipe
from hf_gpt.training.streamed_examples import _parse
from hf_gpt.training.tasks import make_task
from hf_gpt.training.training_arguments import HfGptTrainingArguments


COLUMNS = {"text_column": "text", "label_column": "label"}
LABELS = {
    "booleans": [True, False],
    "floats": [1.0, 0.0],
    "whole": [0, 1, 2],
    "gaps": [0, 2],
    "years": [1999, 2020],
    "negative": [-1, 1],
    "names": ["yes", "no"],
    "dates": ["2020-01-01", "2021-01-01"],
    "zeros": ["007", "008"],
}
NAMES = {
    "booleans": ["false", "true"],
    "floats": ["0", "1"],
    "whole": ["0", "1", "2"],
    "gaps": ["0", "1", "2"],
    "years": ["1999", "2020"],
    "negative": ["-1", "1"],
    "names": ["no", "yes"],
    "dates": ["2020-01-01", "2021-01-01"],
    "zeros": ["007", "008"],
}


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def examples_of(form, rows, tmp_path, task):
    name, _, streams = form.partition(" ")
    if name == "hub":
        folder = write(tmp_path / "hub" / "train-00000.parquet", rows).parent
        if streams:
            return list(one_pass(DocumentStream([open_dataset(str(folder), partial(_parse, task), COLUMNS)])))
        return read_hub_examples(str(folder), COLUMNS)[0]
    path = write(tmp_path / f"rows.{name}", rows)
    if streams:
        return list(one_pass(DocumentStream([open_table(path, partial(_parse, task), COLUMNS)])))
    return read_examples([path], COLUMNS)


FORMS = ["jsonl", "json", "csv", "parquet", "hub", "jsonl streamed", "csv streamed", "parquet streamed", "hub streamed"]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("form", FORMS)
def test_classes_are_the_same_in_every_form(tmp_path, form, kind):
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate([*LABELS[kind], *LABELS[kind]])]
    task = make_task(TaskArguments(task="classification"))
    examples = examples_of(form, rows, tmp_path, task)
    task.learn(examples, [])
    assert task.names == NAMES[kind]
    assert [task.name_of(example) for example in examples] == [label_name(label) for label in LABELS[kind]] * 2


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith(("jsonl", "json", "parquet", "hub"))])
@pytest.mark.parametrize("label", [None, 1.5, "", float("nan"), ["a"]])
def test_what_is_no_class_is_refused_in_every_form(tmp_path, form, label):
    rows = [{"text": "text", "label": label}] * 2
    task = make_task(TaskArguments(task="classification"))
    with pytest.raises(CorpusError, match=r"row|line"):
        task.learn(examples_of(form, rows, tmp_path, task), [])


def test_names_that_are_given():
    def learnt(names, label):
        task = make_task(TaskArguments(task="classification", class_names=names))
        task.learn([Example(text="a", label=label)], [])
        return task.name_of(Example(text="a", label=label))

    assert learnt(["bad", "good"], 1) == learnt(["bad", "good"], "1.0") == learnt(["bad", "good"], True) == "good"
    assert learnt(["no", "yes"], "true") == "yes" and learnt(["False", "True"], True) == "True"
    assert learnt(["False", "True"], "TRUE") == "True" and learnt(["1", "2"], 2.0) == "2"
    for names, label in ((["1", "2"], 0), (["bad", "good"], 2), (["a", "b", "c"], True), (["bad", "good"], -1)):
        with pytest.raises(CorpusError, match="none of the classes"):
            learnt(names, label)


def test_ways_to_write_a_label():
    assert [label_name(label) for label in (True, "FALSE", 1, 1.0, "1.00", "-2.0", "01", "1e0", " a")] == [
        *("true", "false", "1", "1", "1", "-2", "01", "1e0", " a")
    ]
    assert [label_number(label) for label in (True, 3, "3.0", -1, "a", "03")] == [None, 3, 3, None, None, None]
    assert class_names({"10", "9"}) == ["9", "10"] and class_names({"3", "0"}) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "written", ["[no, yes]", "[false, true]", "[2020-01-01, 2021-01-01]", "[1.10, 007]", "[on, ~x]"]
)
def test_a_recipe_means_the_names_that_it_writes(tmp_path, written):
    (tmp_path / "recipe.yaml").write_bytes(
        f"\ufeffclass_names: {written}\neval_strategy: no\nstreaming: yes\n".encode()
    )
    recipe = read_recipe(tmp_path / "recipe.yaml", ["class_names", "eval_strategy", "streaming"])
    settings = load_settings([], [TaskArguments, HfGptTrainingArguments], recipe, tmp_path / "recipe.yaml")
    assert settings.arguments[0].class_names == written.strip("[]").split(", ")
    assert settings.arguments[0].streaming is True and settings.arguments[1].eval_strategy == "no"


def test_classes_that_a_data_set_declares(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": ["a", "b"], "label": [1, 0]}
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "hub" / "train-0.parquet")
    assert [row["label"] for row in read_hub_examples(str(tmp_path / "hub"), COLUMNS)[0]] == ["yes", "no"]
