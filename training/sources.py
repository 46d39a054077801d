"""Sources of a streamed corpus: documents one by one, each with the place where the next one begins.

A place is a short list of numbers. Reading on from it costs no reading of what lies before: text, JSON lines and csv
files are entered by a byte offset, parquet files by a row group, data sets of the Hub by the state of their stream.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gpt.training.errors import CorpusError, did_you_mean


# A text without separators is parted into documents of about this size, after a line end.
MAX_DOCUMENT_BYTES = 2**22
_CHUNK_BYTES = 2**20
_PARQUET_ROWS = 256

# A document or the complaint about a row that holds none, and the place behind it.
Item = tuple["str | Malformed", Any]


@dataclass(frozen=True)
class Malformed:
    """A row that cannot be read; the message says where it is and what is wrong."""

    message: str


@dataclass(frozen=True)
class Source:
    """A source of documents.

    Attributes:
        name: Its path or Hub id.
        read: Yields the documents from a place on; None is the beginning.
        num_bytes: Size of the file, None if it is not known.
    """

    name: str
    read: Callable[[Any], Iterator[Item]]
    num_bytes: int | None


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

    if Path(source).expanduser().is_dir() or (source.count("/") == 1 and not Path(source).suffix):
        return _open_dataset(source, text_column)
    path = resolve_file(source)
    kind = path.suffix.lower()
    if kind == ".gz":
        raise CorpusError(
            f"{path}: a packed file cannot be entered in its middle, as --streaming does to resume. Unpack it first: "
            f"gunzip -k {path.name}"
        )
    if kind in (".jsonl", ".json"):

        def read(place):
            return _read_json_lines(path, text_column, place)
    elif kind == ".csv":

        def read(place):
            return _read_csv(path, text_column, place)
    elif kind == ".parquet":

        def read(place):
            return _read_parquet(path, text_column, place)
    else:
        separator = None if document_separator is None else parse_separator(document_separator).encode()

        def read(place):
            return _read_text(path, separator, place)

    return Source(source, read, path.stat().st_size)


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


def _read_json_lines(path: Path, text_column: str, place: list[int] | None) -> Iterator[Item]:
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
            yield _text_of(row, text_column, f"{path}, line {number}"), [offset, number]


def _read_csv(path: Path, text_column: str, place: list[int] | None) -> Iterator[Item]:
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

        columns = [name.removeprefix("\ufeff") for name in next(csv.reader(lines()), [])]
        if text_column not in columns:
            raise CorpusError(_no_column(path, text_column, columns))
        number = 0
        if place is not None:
            offset, number = place
            file.seek(offset)
        for row in csv.reader(lines()):
            number += 1
            if not row:
                continue
            where = f"{path}, row {number}"
            if len(row) != len(columns):
                yield Malformed(f"{where}: {len(row)} fields instead of {len(columns)}"), [offset, number]
                continue
            yield _text_of(dict(zip(columns, row, strict=True)), text_column, where), [offset, number]


def _read_parquet(path: Path, text_column: str, place: list[int] | None) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    group, row = place or (0, 0)
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise CorpusError(f"{path}: cannot be read as parquet: {error}. Check the file's format.") from error
    with file:
        if text_column not in file.schema_arrow.names:
            raise CorpusError(_no_column(path, text_column, file.schema_arrow.names))
        for index in range(group, file.num_row_groups):
            done = row if index == group else 0
            seen = 0
            for batch in file.iter_batches(_PARQUET_ROWS, row_groups=[index], columns=[text_column]):
                if seen + len(batch) <= done:
                    seen += len(batch)
                    continue
                for text in batch.column(0).to_pylist()[max(0, done - seen) :]:
                    done = max(done, seen) + 1
                    yield (
                        _text_of({text_column: text}, text_column, f"{path}, row group {index}, row {done}"),
                        [index, done],
                    )
                seen += len(batch)


def _open_dataset(name: str, text_column: str) -> Source:
    import datasets

    try:
        stream = datasets.load_dataset(name, split="train", streaming=True)
    except Exception as error:
        raise CorpusError(
            f"--corpus: no file and no data set {name!r} with a split named train: {error}. For a file give its path."
        ) from error

    def read(place: Any) -> Iterator[Item]:
        # Each reading has a stream of its own, or one would move the other's place.
        own = datasets.load_dataset(name, split="train", streaming=True)
        own.load_state_dict(own.state_dict() if place is None else place["stream"])
        number = 0 if place is None else place["row"]
        for row in own:
            number += 1
            yield (
                _text_of(row, text_column, f"{name}, row {number}"),
                {
                    "stream": own.state_dict(),
                    "row": number,
                },
            )

    if stream.column_names is not None and text_column not in stream.column_names:
        raise CorpusError(_no_column(Path(name), text_column, stream.column_names))
    return Source(name, read, None)


def _text_of(row: Any, text_column: str, where: str) -> "str | Malformed":
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
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return Malformed(f"{where}: {text_column!r} is not UTF-8")
    return text


def _no_column(path: Path, text_column: str, columns: list[str]) -> str:
    hint = did_you_mean(text_column, columns)
    return f"{path}: no column {text_column!r}{hint} Choose with --text_column among {', '.join(columns)}."
