"""Rows of a task: from a file of any form that is trained on, a text file, or a data set of the Hub."""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hf_gpt.data.examples import shown
from hf_gpt.data.row_files import broken_text, has_broken_text
from hf_gpt.data.text_files import absent_separator, fold_line_ends, parse_separator, read_text
from hf_gpt.errors import CorpusError, UserError, did_you_mean
from hf_gpt.evaluation.tasks.registry import LIKELIHOOD, TaskSpec


_TABLES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")
_TEXTS = (".txt", ".txt.gz")
_SLOT = re.compile(r"\{(\w+)\}")

logger = logging.getLogger(__name__)


def find_file(spec: TaskSpec, data: Path | None) -> Path | None:
    """Where a task's file lies; None where its data set is one of the Hub.

    Args:
        spec: The task.
        data: What `--data` names: the folder that the paths of tasks start from, or a file in place of the task's own.

    Raises:
        UserError: there is no such file; the message says where it was looked for.
    """
    if data is not None and data.is_file():
        return data
    if data is not None and not data.is_dir():
        raise UserError(f"--data {data}: no such file or folder.")
    if spec.file is None:
        if spec.hub is None:
            raise UserError(f"task {spec.name} has no data of its own. Name a file with --data.")
        return None
    folders = [folder for folder in (data, Path(spec.folder) if spec.folder else None, Path()) if folder is not None]
    for folder in folders:
        if (folder / spec.file).is_file():
            return folder / spec.file
    if spec.hub is not None:
        return None
    tried = ", ".join(dict.fromkeys(map(str, folders)))
    raise UserError(
        f"task {spec.name}: no file {spec.file} in {tried}. Name the folder that it lies in with --data, or the file "
        "itself."
    )


def read_task_rows(spec: TaskSpec, data: Path | None, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a task.

    Args:
        spec: The task.
        data: As for `find_file`.
        limit: Most rows: a random choice, the same each time, since files are often sorted.

    Raises:
        UserError: there is no such data, a row lacks a column, or nothing is there.
    """
    path = find_file(spec, data)
    source = str(path or spec.hub)
    rows = []
    for position, row in _from_hub(spec) if path is None else _from_file(spec, path):
        if not isinstance(row, Mapping):
            raise CorpusError(f"{position}: must be an object of columns. Mend or remove the row.")
        for column in spec.columns:
            if column not in row:
                raise CorpusError(
                    f"task {spec.name}, {position}: no column {column!r}{did_you_mean(column, list(row))} It has "
                    f"{', '.join(map(str, row))}."
                )
        row = _checked(spec, row, position)
        if row is not None:
            rows.append(row)
    if not rows:
        raise CorpusError(f"task {spec.name}: {source} holds no row.")
    if limit is not None and limit < len(rows):
        kept = np.sort(np.random.default_rng(0).permutation(len(rows))[:limit])
        rows = [rows[position] for position in kept]
    return rows


def _checked(spec: TaskSpec, row: Mapping[str, Any], position: str) -> dict[str, Any] | None:
    """A row whose columns can be read and put into templates, the line ends of its texts folded.

    Of a corpus blank texts are left out, as in training: they give None.

    Raises:
        CorpusError: a text is no UTF-8, an example is blank, or a template's column holds no text and no number.
    """
    row = dict(row)
    for column in spec.columns:
        value = row[column]
        if has_broken_text(value):
            raise CorpusError(
                f"task {spec.name}, {position}: {broken_text(value)} in {column!r}. Mend or remove the row."
            )
        if isinstance(value, str):
            row[column] = fold_line_ends(value)
    for column in spec.slots:
        if not isinstance(row[column], (str, int, float)):
            raise CorpusError(
                f"task {spec.name}, {position}: {column!r} must be a text or a number to stand in a template, found "
                f"{shown(row[column])}. Mend or remove the row."
            )
    if spec.kind in (*LIKELIHOOD, "unconditional") and not str(row[spec.text] or "").strip():
        return None
    if spec.reads_text and not (isinstance(row[spec.text], str) and row[spec.text].strip()):
        raise CorpusError(
            f"task {spec.name}, {position}: {spec.text!r} must be a text that is not blank, found "
            f"{shown(row[spec.text])}. Mend or remove the row."
        )
    return row


def fill(template: str, row: Mapping[str, Any]) -> str:
    """A template with a row's columns in place of `{column}`."""
    return _SLOT.sub(lambda slot: str(row[slot[1]]), template)


def _from_file(spec: TaskSpec, path: Path) -> Iterator[tuple[str, Any]]:
    from hf_gpt.data.examples import read_rows

    if path.name.lower().endswith(_TEXTS):
        yield from _from_text(spec, path)
    elif path.name.lower().endswith(_TABLES):
        yield from read_rows(path)
    else:
        raise CorpusError(f"{path}: unknown form. Give a file that ends in {', '.join((*_TEXTS, *_TABLES))}.")


def _from_text(spec: TaskSpec, path: Path) -> Iterator[tuple[str, Any]]:
    content = read_text(path)
    given = "\n" if spec.document_separator is None else spec.document_separator
    separator = parse_separator(given) if given else None
    if spec.document_separator and (warning := absent_separator(separator, [content])):
        logger.warning("warning: task %s, %s: %s", spec.name, path, warning.replace("--", ""))
    for number, text in enumerate(content.split(separator) if separator else [content], 1):
        if text.strip():
            yield f"{path}, text {number}", {spec.text: text.strip("\n")}


def _from_hub(spec: TaskSpec) -> Iterator[tuple[str, Any]]:
    import datasets

    try:
        found = datasets.load_dataset(spec.hub, spec.subset, split=spec.split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = f" or give the folder of {spec.file} with --data" if spec.file else ""
        raise UserError(
            f"task {spec.name}: {spec.hub} ({spec.split}) could not be loaded: {reason}. Check the connection and the "
            f"name,{where or ' or give a file with --data'}."
        ) from error
    for number, row in enumerate(found, 1):
        yield f"{spec.hub}, row {number}", row
