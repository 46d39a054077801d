"""Reading of examples, rows with several columns, for fine-tuning; and their split into training and validation."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gpt.data import row_files
from hf_gpt.data.row_files import FORMATS, Malformed, advised, broken_text, check_columns, has_broken_text
from hf_gpt.data.splits import held_out_rows, same_text
from hf_gpt.data.text_files import fold_line_ends
from hf_gpt.errors import CorpusError, did_you_mean


SAMPLES = Path(__file__).with_name("samples")


class Example(dict):
    """A row of a file, by column.

    Attributes:
        position: Where it was read, for errors: file and line.
    """

    position: str = "an example"


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
        if path.is_dir():
            raise CorpusError(f"{path} is a folder. Give the path of a {', '.join(FORMATS)} file.")
        if not path.is_file():
            raise CorpusError(f"no such file: {path}. Give the path of a {', '.join(FORMATS)} file.")
        for position, row in read_rows(path):
            if limit is not None and len(examples) >= limit:
                return examples
            if not isinstance(row, dict):
                raise CorpusError(
                    f"{position}: must be an object of columns, found {shown(row)}. Mend or remove the row."
                )
            examples.append(select_columns(row, columns, position))
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
    """The text in a column, its line ends folded to `\\n`.

    Raises:
        CorpusError: it holds something else, or nothing.
    """
    value = example[column]
    if not isinstance(value, str) or not value.strip():
        raise CorpusError(
            f"{example.position}: column {column!r} must be a text that is not blank, found {shown(value)}. "
            "Mend or remove the row."
        )
    return fold_line_ends(value)


def shown(value: Any) -> str:
    """A value for an error: as JSON, of a long one the start."""
    try:
        return json.dumps(value, default=str)[:60]
    except (TypeError, ValueError):
        return repr(value)[:60]


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
            f"{example.position}: column {column!r} must be a text or a list of texts, found {shown(value)}. "
            "Mend or remove the row."
        )
    return [fold_line_ends(text) for text in value]


def _json_or(text: str, otherwise: Any) -> Any:
    if not text.startswith("["):
        return otherwise
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


def select_columns(row: Mapping[str, Any], columns: Mapping[str, str], position: str) -> Example:
    """The example that a row holds, with these columns alone.

    Raises:
        CorpusError: the row lacks one of them, or holds text that is no UTF-8.
    """
    check_columns(list(row), columns, position)
    example = Example({column: row[column] for column in columns.values() if column in row})
    for column, value in example.items():
        if has_broken_text(value):
            raise CorpusError(f"{position}: {broken_text(value)} in column {column!r}. Mend or remove the row.")
    example.position = position
    return example


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file, each with its place for errors.

    Raises:
        CorpusError: the file is not of its format, or a row cannot be read; the message names it.
    """
    if path.suffix.lower() == ".parquet":
        yield from _read_parquet(path)
        return
    for where, values, _ in row_files.read_rows(path):
        if isinstance(values, Malformed):
            raise advised(values)
        yield where, values


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows by the library, which makes images and audio of columns that say they hold them."""
    import datasets
    import pyarrow as pa

    try:
        table = datasets.Dataset.from_parquet(str(path))
    except (pa.ArrowException, datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise CorpusError(f"{path}: cannot be read as parquet: {cause}. Check the file's format.") from error
    for number in range(len(table)):
        where = f"{path}, row {number + 1}"
        try:
            yield where, table[number]
        except (UnicodeDecodeError, OverflowError) as error:
            raise CorpusError(f"{where}: not UTF-8 ({error}). Mend or remove the row.") from error
