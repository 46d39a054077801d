"""Sources of what is streamed: documents or examples one by one, each with the place where the next one begins.

A place is a short list of numbers. Reading on from it costs no reading of what lies before: text, JSON lines and csv
files are entered by a byte offset, parquet files by a row group, data sets of the Hub by the state of their stream.
"""

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hf_gpt.data.row_files import FORMATS, Malformed, check_columns, is_one_value, read_rows, text_in
from hf_gpt.data.text_files import (
    MAX_DOCUMENT_BYTES,
    absent_separator,
    fold_line_ends,
    parse_separator,
    stream_documents,
)
from hf_gpt.errors import CorpusError
from hf_gpt.files.model_paths import check_exists


logger = logging.getLogger(__name__)

# A document, an example or the complaint about a row that holds none, and the place behind it.
Item = tuple[Any, Any]
# Makes an item of a row, given where the row is, for errors.
Parse = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Source:
    """A source of documents or examples.

    Attributes:
        name: Its path or Hub id.
        read: Yields the items from a position on; None is the start.
        num_bytes: Size of the file, None if it is not known.
        classes: Names of the classes in a column, where the source says them beforehand.
    """

    name: str
    read: Callable[[Any], Iterator[Item]]
    num_bytes: int | None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def open_source(source: str, *, text_column: str = "text", document_separator: str | None = None) -> Source:
    """The source that a path, the name of a built-in corpus or a Hub id (`owner/name`) stands for.

    Args:
        source: The path, name or id. Files are told apart as by `corpus.read_corpus`; a folder is opened as the Hub's
            data sets are.
        text_column: The column of a table that holds the text.
        document_separator: Where a text file parts into documents, as for `corpus.read_corpus`.

    Raises:
        CorpusError: there is no such file or data set.
    """
    from hf_gpt.data.corpus import resolve_file

    parse, columns = partial(_document_of, text_column), {"text_column": text_column}
    local = Path(source).expanduser()
    if local.is_dir() or (source.count("/") == 1 and not local.suffix and not local.is_file()):
        return open_dataset(source, parse, columns)
    path = resolve_file(source)
    if path.suffix.lower() in (*FORMATS, ".gz"):
        return open_table(path, parse, columns, name=source)
    separator = None if document_separator is None else parse_separator(document_separator)
    return Source(source, partial(_read_text, path, separator), path.stat().st_size)


def warn_of_absent_separator(names: Sequence[str], document_separator: str | None) -> None:
    """Logs a warning where the separator does not occur at the start of any text file among the sources."""
    from hf_gpt.data.corpus import CORPORA

    if document_separator is None:
        return
    heads = []
    for name in names:
        path = Path(name).expanduser()
        path = path if path.is_file() else CORPORA / f"{name}.txt"
        if path.is_file() and path.suffix.lower() not in (*FORMATS, ".gz"):
            with path.open("rb") as file:
                heads.append(fold_line_ends(file.read(MAX_DOCUMENT_BYTES).decode("utf-8", "replace")))
    if warning := absent_separator(parse_separator(document_separator), heads):
        logger.warning("warning: in the first %d MiB, %s", MAX_DOCUMENT_BYTES // 2**20, warning)


def open_table(path: Path, parse: Parse, columns: Mapping[str, str], *, name: str | None = None) -> Source:
    """The source that a file of rows is.

    Args:
        path: A `.jsonl` or `.json` file with an object in each line, a `.csv` or a `.parquet` file.
        parse: Makes an item of a row.
        columns: The option that names it, to the column that is read.
        name: What the source is called; left out: its path.

    Raises:
        CorpusError: the file is packed or of no such format.
    """
    kind = path.suffix.lower()
    if kind == ".gz":
        raise CorpusError(
            f"{path}: a packed file cannot be entered in its middle, as --streaming does to resume. Unpack it first: "
            f"gunzip -k {shlex.quote(path.name)}"
        )
    if kind not in FORMATS:
        raise CorpusError(f"{path}: unknown format. Give a {', '.join(FORMATS)} file.")
    if kind == ".json" and is_one_value(path):
        raise CorpusError(
            f"{path}: --streaming reads an object in each line, and this file is one value over many. Write each "
            f"object into a line of its own, and name the file {path.stem}.jsonl."
        )
    return Source(name or str(path), partial(_read_table, path, parse, columns), path.stat().st_size)


def _read_text(path: Path, separator: str | None, position: list[int] | None) -> Iterator[Item]:
    for document, behind in stream_documents(path, separator, position):
        yield Malformed(str(document)) if isinstance(document, CorpusError) else document, behind


def _read_table(path: Path, parse: Parse, columns: Mapping[str, str], position: list[int] | None) -> Iterator[Item]:
    for where, values, behind in read_rows(path, position, columns=columns):
        yield values if isinstance(values, Malformed) else parse(values, where), behind


def open_dataset(
    name: str,
    parse: Parse,
    columns: Mapping[str, str],
    *,
    config_name: str | None = None,
    split: str = "train",
    option: str = "train_file",
) -> Source:
    """The source that a split of a data set of the Hub is, or of a folder of that form.

    Args:
        name: Hub id, or folder.
        parse: Makes an item of a row, in which classes that are kept as numbers have their names.
        columns: The option that names it, to the column that is read.
        config_name: Of a data set that has several.
        split: Name of the split.
        option: What names the data set, for errors.

    Raises:
        CorpusError: there is no such data set, configuration, split or column.
    """
    import datasets

    from hf_gpt.data.hub_examples import class_names, readable_rows

    check_exists(name, option, "data set")

    def load() -> datasets.IterableDataset:
        return datasets.load_dataset(name, config_name, split=split, streaming=True)

    try:
        stream = load()
    except Exception as error:
        hint = " For a file give its path." if option == "train_file" else ""
        raise CorpusError(
            f"--{option}: no file and no data set {name!r} with a split named {split}: {error}.{hint}"
        ) from error
    readable = readable_rows(stream.features)

    def read(position: Any) -> Iterator[Item]:
        # Each reading has a stream of its own, or one would move the other's place.
        own = load()
        own.load_state_dict(own.state_dict() if position is None else position["stream"])
        number = 0 if position is None else position["row"]
        for row in own:
            number += 1
            yield parse(readable(row), f"{name}, row {number}"), {"stream": own.state_dict(), "row": number}

    if stream.column_names is not None and "translation" not in stream.column_names:
        check_columns(stream.column_names, columns, name)
    return Source(name, read, None, class_names(stream.features))


def _document_of(text_column: str, row: Any, where: str) -> str | Malformed:
    from hf_gpt.data.corpus import document_of

    text = text_in(row, text_column, where)
    return text if isinstance(text, Malformed) else document_of(text)
