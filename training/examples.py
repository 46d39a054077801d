"""Reading of examples, rows with several columns, for fine-tuning; and their split into training and validation."""

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gpt.training.errors import CorpusError, did_you_mean
from hf_gpt.training.held_out import held_out_rows, same_text


SAMPLES = Path(__file__).with_name("samples")
FORMATS = (".jsonl", ".json", ".csv", ".parquet")


class Example(dict):
    """A row of a file, by column.

    Attributes:
        place: Where it was read, for errors: file and line.
    """

    place: str = "an example"


def sample_file(task: str) -> Path:
    """The built-in sample of a task."""
    return SAMPLES / f"{task}.jsonl"


def read_examples(
    files: Sequence[str | Path], columns: Mapping[str, str], *, limit: int | None = None
) -> list[Example]:
    """Reads the rows of files.

    Args:
        files: Paths of `.jsonl`, `.json`, `.csv` or `.parquet` files; all but the last may end in `.gz` as well.
        columns: The option that names it, to the column that every row must have.
        limit: Most rows.

    Returns:
        The rows, with these columns alone.

    Raises:
        CorpusError: a file is missing, empty or not of its format, or a row lacks a column; the message names the row.
    """
    examples: list[Example] = []
    for file in files:
        path = Path(file).expanduser()
        if not path.is_file():
            raise CorpusError(f"no such file: {path}. Give the path of a {', '.join(FORMATS)} file.")
        for place, row in read_rows(path):
            if limit is not None and len(examples) >= limit:
                return examples
            if not isinstance(row, dict):
                raise CorpusError(f"{place}: must be an object of columns, found {json.dumps(row)[:60]}.")
            examples.append(select_columns(row, columns, place))
    if not examples:
        raise CorpusError(f"{', '.join(map(str, files))}: no example found. Give a file with rows in it.")
    return examples


def split_examples(examples: list[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Splits off a validation set, the same one for the same examples and seed; copies of an example are on one side.

    Raises:
        CorpusError: the fraction is out of range, or there are fewer than two examples.
    """
    if not 0 < fraction < 1:
        raise CorpusError(f"--validation_fraction must be above 0 and below 1, got {fraction}.")
    if len(examples) < 2:
        raise CorpusError("one example cannot be split. Give more, or a --validation_file.")
    held_out = set(held_out_rows(map(_key, examples), fraction, seed).tolist())
    train = [example for index, example in enumerate(examples) if index not in held_out]
    return train, [example for index, example in enumerate(examples) if index in held_out]


def _key(example: Example) -> str:
    """What an example says; case and blanks of its texts do not count."""
    return repr(
        sorted((name, same_text(value) if isinstance(value, str) else value) for name, value in example.items())
    )


def hold_out_groups(
    examples: list[Example], column: str | None, groups: Sequence[str]
) -> tuple[list[Example], list[Example]]:
    """Splits off all examples of some groups, such as speakers or sources, which training then never sees.

    Args:
        examples: With the column.
        column: What names the group of an example.
        groups: Those that are held out.

    Raises:
        CorpusError: no column is named, a group has no example, or no other group is left.
    """
    if column is None:
        raise CorpusError("--held_out_groups needs --group_column, the column that names the group of an example.")
    present = {str(example[column]) for example in examples}
    for group in groups:
        if group not in present:
            hint = did_you_mean(group, sorted(present))
            raise CorpusError(f"--held_out_groups: no example is of {group!r} in column {column!r}{hint}")
    held_out = [example for example in examples if str(example[column]) in groups]
    if len(held_out) == len(examples):
        raise CorpusError(f"--held_out_groups names every group: {', '.join(sorted(present))}. Leave some to train on.")
    return [example for example in examples if str(example[column]) not in groups], held_out


def text_of(example: Example, column: str) -> str:
    """The text in a column.

    Raises:
        CorpusError: it holds something else, or nothing.
    """
    value = example[column]
    if not isinstance(value, str) or not value.strip():
        raise CorpusError(
            f"{example.place}: column {column!r} must be a text that is not blank, found {json.dumps(value)[:60]}. "
            "Mend or remove the row."
        )
    return value


def texts_of(example: Example, column: str) -> list[str]:
    """The texts in a column that holds one or a list of them; a list in a .csv file is written as JSON.

    Raises:
        CorpusError: it holds something else.
    """
    value = example[column]
    if isinstance(value, str):
        value = _json_or(value, [value])
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise CorpusError(
            f"{example.place}: column {column!r} must be a text or a list of texts, found {json.dumps(value)[:60]}. "
            "Mend or remove the row."
        )
    return list(value)


def _json_or(text: str, otherwise: Any) -> Any:
    if not text.startswith("["):
        return otherwise
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


def select_columns(row: Mapping[str, Any], columns: Mapping[str, str], place: str) -> Example:
    """The example that a row holds, with these columns alone.

    Raises:
        CorpusError: the row lacks one of them.
    """
    check_columns(list(row), columns, place)
    example = Example({column: row[column] for column in columns.values()})
    example.place = place
    return example


def check_columns(present: Sequence[str], columns: Mapping[str, str], place: str) -> None:
    """Looks for the columns that are read among those that a row or file has.

    Args:
        present: Those that there are.
        columns: The option that names it, to the column that must be there.
        place: The row or file, for the error.

    Raises:
        CorpusError: one is missing.
    """
    for option, column in columns.items():
        if column not in present:
            raise CorpusError(
                f"{place}: no column {column!r}{did_you_mean(column, present)} Choose with --{option} among "
                f"{', '.join(map(str, present))}."
            )


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file, each with its place for errors.

    Raises:
        CorpusError: the file is not of its format.
    """
    suffix = Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()
    if suffix not in FORMATS or (suffix == ".parquet" and path.suffix == ".gz"):
        raise CorpusError(f"{path}: unknown format. Give a {', '.join(FORMATS)} file.")
    if suffix == ".parquet":
        yield from _read_parquet(path)
        return
    try:
        # Programs for tables begin UTF-8 with a mark, and end lines within a field as the file does.
        options = {"encoding": "utf-8-sig", "newline": ""}
        with gzip.open(path, "rt", **options) if path.suffix == ".gz" else path.open(**options) as file:
            if suffix == ".csv":
                yield from _read_csv(path, file)
            elif suffix == ".json":
                content = json.load(file)
                for number, row in enumerate(content if isinstance(content, list) else [content], 1):
                    yield f"{path}, row {number}", row
            else:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"{path}, line {number}", _parse(line, path, number)
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: cannot be read as {suffix[1:]}: {error}. Check the file's format.") from error


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import datasets
    import pyarrow as pa

    try:
        table = datasets.Dataset.from_parquet(str(path))
    except (pa.ArrowException, datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise CorpusError(f"{path}: cannot be read as parquet: {cause}. Check the file's format.") from error
    for number, row in enumerate(table, 1):
        yield f"{path}, row {number}", row


def _read_csv(path: Path, file: Iterable[str]) -> Iterator[tuple[str, Any]]:
    # The module's own limit of 128 KiB for a field is less than many documents.
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(file)
    header = next(rows, [])
    for number, row in enumerate(filter(None, rows), 1):
        if len(row) != len(header):
            raise CorpusError(
                f"{path}, row {number}: {len(row)} fields instead of {len(header)}. Put a text with a comma in it "
                "between double quotes, or remove the row."
            )
        yield f"{path}, row {number}", dict(zip(header, row, strict=True))


def _parse(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}, line {number}: {error}. Mend or remove the line.") from error
