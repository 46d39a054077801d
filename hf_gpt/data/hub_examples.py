"""Examples of a data set of the Hub, or of a folder of that form, for fine-tuning."""

from collections.abc import Callable, Mapping
from typing import Any

import datasets

from hf_gpt.data.examples import Example, select_columns
from hf_gpt.errors import CorpusError
from hf_gpt.files.model_paths import check_exists


VALIDATION_SPLITS = ("validation", "dev", "valid", "validation_matched")


def read_hub_examples(
    name: str,
    columns: Mapping[str, str],
    *,
    config_name: str | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
) -> tuple[list[Example], list[Example] | None]:
    """Reads the examples to train on, and those to validate on where there are any.

    Classes that the data set keeps as numbers are given by their names; the languages of a `translation` column are
    columns of their own.

    Args:
        name: Hub id, or a folder.
        columns: The option that names it, to the column that every row must have.
        config_name: Of a data set that has several.
        train_split: May be a part of one, as in `train[:1000]`.
        validation_split: Left out: the first of `VALIDATION_SPLITS` that the data set has, else None is returned.

    Raises:
        CorpusError: there is no such data set, configuration, split or column.
    """
    check_exists(name, "dataset_name", "data set")
    train = _load(name, config_name, train_split)
    if validation_split is None:
        validation_split = find_validation_split(name, config_name)
    found = [train] if validation_split is None else [train, _load(name, config_name, validation_split)]
    parts = [_examples(part, columns, name) for part in found]
    return parts[0], parts[1] if len(parts) == 2 else None


def find_validation_split(name: str, config_name: str | None) -> str | None:
    """The first of `VALIDATION_SPLITS` that a data set has."""
    splits = _try(lambda: datasets.get_dataset_split_names(name, config_name), name)
    return next((split for split in VALIDATION_SPLITS if split in splits), None)


def _load(name: str, config_name: str | None, split: str) -> datasets.Dataset:
    return _try(lambda: datasets.load_dataset(name, config_name, split=split), f"{name}, split {split}")


def _try(load: Callable[[], Any], what: str) -> Any:
    try:
        return load()
    except Exception as error:
        # The library raises errors of many kinds, of the network's packages too.
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CorpusError(f"--dataset_name {what}: {reason}") from error


def _examples(found: datasets.Dataset, columns: Mapping[str, str], name: str) -> list[Example]:
    readable = readable_rows(found.features)
    examples = [select_columns(readable(row), columns, f"{name}, row {number}") for number, row in enumerate(found, 1)]
    if not examples:
        raise CorpusError(f"--dataset_name {name}: the split holds no example.")
    return examples


def readable_rows(features: Mapping[str, Any] | None) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What makes rows of a data set those of a file: names of class numbers, languages as columns of their own."""
    readers = {column: _reader(feature) for column, feature in (features or {}).items()}

    def readable(row: Mapping[str, Any]) -> dict[str, Any]:
        values = {column: readers[column](value) if column in readers else value for column, value in row.items()}
        if isinstance(values.get("translation"), dict):
            values |= values.pop("translation")
        return values

    return readable


def class_names(features: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """The names of the classes in each column that a data set keeps as numbers."""
    labels = {column: getattr(feature, "feature", feature) for column, feature in (features or {}).items()}
    return {column: list(label.names) for column, label in labels.items() if isinstance(label, datasets.ClassLabel)}


def _reader(feature: Any) -> Callable[[Any], Any]:
    """What makes names of class numbers; -1, which stands for a hidden class, becomes None."""
    if isinstance(feature, datasets.ClassLabel):
        return lambda value: feature.names[value] if value is not None and value >= 0 else None
    inner = getattr(feature, "feature", None)
    if isinstance(inner, datasets.ClassLabel):
        return lambda values: [inner.names[value] for value in values]
    return lambda value: value


def check_dataset_options(task_args: Any) -> None:
    """Refuses options of a data set without one, and a data set beside files.

    Raises:
        CorpusError: they do not go together.
    """
    if task_args.dataset_name is None:
        given = [name for name in ("dataset_config_name", "validation_split") if getattr(task_args, name) is not None]
        if given:
            raise CorpusError(f"--{given[0]} is of a data set: name it with --dataset_name.")
    elif task_args.validation_split is not None and task_args.validation_file:
        raise CorpusError("--validation_split and --validation_file do not go together: choose one.")
    elif task_args.train_file or task_args.held_out_groups:
        other = "train_file" if task_args.train_file else "held_out_groups"
        raise CorpusError(f"--dataset_name and --{other} do not go together: choose one.")
