"""Sources of what is streamed: documents or examples one by one, each with the place where the next one begins.

A place is a short list of numbers. Reading on from it costs no reading of what lies before: text, JSON lines and csv
files are entered by a byte offset, parquet files by a row group, data sets of the Hub by the state of their stream.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hf_gpt.model_paths import check_exists
from hf_gpt.training.errors import CorpusError, did_you_mean
from hf_gpt.training.examples import check_columns


# A text without separators is parted into documents of about this size, after a line end.
MAX_DOCUMENT_BYTES = 2**22
_CHUNK_BYTES = 2**20
_PARQUET_ROWS = 256
_SURROGATE = re.compile("[\ud800-\udfff]")

# A document, an example or the complaint about a row that holds none, and the place behind it.
Item = tuple[Any, Any]
# Makes an item of a row, given where the row is, for errors.
Parse = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Malformed:
    """A row that cannot be read; the message says where it is and what is wrong."""

    message: str


@dataclass(frozen=True)
class Source:
    """A source of documents or examples.

    Attributes:
        name: Its path or Hub id.
        read: Yields the items from a place on; None is the beginning.
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
    from hf_gpt.training.corpus import parse_separator, resolve_file

    parse, columns = partial(_text_of, text_column), {"text_column": text_column}
    local = Path(source).expanduser()
    if local.is_dir() or (source.count("/") == 1 and not local.suffix and not local.is_file()):
        return open_dataset(source, parse, columns)
    path = resolve_file(source)
    if path.suffix.lower() in TABLES or path.suffix.lower() == ".gz":
        return open_table(path, parse, columns, name=source)
    separator = None if document_separator is None else parse_separator(document_separator).encode()
    return Source(source, partial(_read_text, path, separator), path.stat().st_size)


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
            f"gunzip -k {path.name}"
        )
    if kind not in TABLES:
        raise CorpusError(f"{path}: unknown format. Give a {', '.join(TABLES)} file.")
    return Source(name or str(path), partial(TABLES[kind], path, parse, columns), path.stat().st_size)


def _read_text(path: Path, separator: bytes | None, place: list[int] | None) -> Iterator[Item]:
    offset = 0 if place is None else place[0]
    with path.open("rb") as file:
        file.seek(offset)
        buffer, ended = b"", False
        while buffer or not ended:
            cut = -1 if separator is None else buffer.find(separator)
            if cut == -1 and not ended and len(buffer) < MAX_DOCUMENT_BYTES:
                chunk = file.read(_CHUNK_BYTES)
                ended = not chunk
                buffer += chunk
                continue
            gap = len(separator) if cut != -1 else 0
            if cut == -1:
                cut = len(buffer) if ended else _text_end(buffer)
            document, buffer = buffer[:cut], buffer[cut + gap :]
            start, offset = offset, offset + cut + gap
            try:
                yield document.decode("utf-8"), [offset]
            except UnicodeDecodeError as error:
                where = f"{path}: not UTF-8, byte 0x{document[error.start]:02x} at offset {start + error.start}"
                yield Malformed(f"{where} ({error.reason})"), [offset]


def _text_end(buffer: bytes) -> int:
    """Where to cut a text that goes on: after the last line end, else before the last character."""
    cut = buffer.rfind(b"\n") + 1
    if cut == 0:
        cut = len(buffer) - 1
        while cut > 1 and buffer[cut] & 0xC0 == 0x80:
            cut -= 1
    return cut


def _read_json_lines(path: Path, parse: Parse, columns: Mapping[str, str], place: list[int] | None) -> Iterator[Item]:
    offset, number = place or (0, 0)
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            offset, number = offset + len(line), number + 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield Malformed(f"{path}, line {number}: {error}"), [offset, number]
                continue
            yield parse(row, f"{path}, line {number}"), [offset, number]


def _read_csv(path: Path, parse: Parse, columns: Mapping[str, str], place: list[int] | None) -> Iterator[Item]:
    with path.open("rb") as file:
        offset = 0
        # The module's own limit of 128 KiB for a field is less than many documents.
        csv.field_size_limit(2**31 - 1)

        def lines() -> Iterator[str]:
            nonlocal offset
            for line in file:
                offset += len(line)
                # A byte that is no UTF-8 becomes a lone surrogate, which the row's check finds.
                yield line.decode("utf-8", errors="surrogateescape")

        header = [name.removeprefix("\ufeff") for name in next(csv.reader(lines()), [])]
        check_columns(header, columns, str(path))
        number = 0
        if place is not None:
            offset, number = place
            file.seek(offset)
        for row in csv.reader(lines()):
            number += 1
            if not row:
                continue
            where = f"{path}, row {number}"
            if len(row) != len(header):
                yield Malformed(f"{where}: {len(row)} fields instead of {len(header)}"), [offset, number]
                continue
            yield parse(dict(zip(header, row, strict=True)), where), [offset, number]


def _read_parquet(path: Path, parse: Parse, columns: Mapping[str, str], place: list[int] | None) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    group, row = place or (0, 0)
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise CorpusError(f"{path}: cannot be read as parquet: {error}. Check the file's format.") from error
    with file:
        check_columns(file.schema_arrow.names, columns, str(path))
        wanted = list(dict.fromkeys(columns.values()))
        for index in range(group, file.num_row_groups):
            done = row if index == group else 0
            seen = 0
            for batch in file.iter_batches(_PARQUET_ROWS, row_groups=[index], columns=wanted):
                if seen + len(batch) <= done:
                    seen += len(batch)
                    continue
                for values in batch.slice(max(0, done - seen)).to_pylist():
                    done = max(done, seen) + 1
                    yield parse(values, f"{path}, row group {index}, row {done}"), [index, done]
                seen += len(batch)


TABLES = {
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def open_dataset(
    name: str,
    parse: Parse,
    columns: Mapping[str, str],
    *,
    config_name: str | None = None,
    split: str = "train",
    option: str = "corpus",
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

    from hf_gpt.training.hub_examples import class_names, readable_rows

    check_exists(name, option, "data set")

    def load() -> datasets.IterableDataset:
        return datasets.load_dataset(name, config_name, split=split, streaming=True)

    try:
        stream = load()
    except Exception as error:
        hint = " For a file give its path." if option == "corpus" else ""
        raise CorpusError(
            f"--{option}: no file and no data set {name!r} with a split named {split}: {error}.{hint}"
        ) from error
    readable = readable_rows(stream.features)

    def read(place: Any) -> Iterator[Item]:
        # Each reading has a stream of its own, or one would move the other's place.
        own = load()
        own.load_state_dict(own.state_dict() if place is None else place["stream"])
        number = 0 if place is None else place["row"]
        for row in own:
            number += 1
            yield parse(readable(row), f"{name}, row {number}"), {"stream": own.state_dict(), "row": number}

    if stream.column_names is not None and "translation" not in stream.column_names:
        check_columns(stream.column_names, columns, name)
    return Source(name, read, None, class_names(stream.features))


def has_broken_text(value: Any) -> bool:
    """Whether a text in a value is none in UTF-8: a byte of a file that was no UTF-8, or half of a surrogate pair."""
    if isinstance(value, str):
        return not value.isascii() and _SURROGATE.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(has_broken_text, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_broken_text, value))


def _text_of(text_column: str, row: Any, where: str) -> "str | Malformed":
    if not isinstance(row, dict):
        return Malformed(f"{where}: a {type(row).__name__}, not an object with the key {text_column!r}")
    if text_column not in row:
        hint = did_you_mean(text_column, list(row)).rstrip(".")
        return Malformed(f"{where}: no {text_column!r}{hint} (--text_column)")
    text = row[text_column]
    if text is None:
        return ""
    if not isinstance(text, str):
        return Malformed(f"{where}: {text_column!r} is a {type(text).__name__}, not text")
    return Malformed(f"{where}: {text_column!r} is not UTF-8") if has_broken_text(text) else text
