"""Tables as every command reads them: `.jsonl`, `.json`, `.csv` and `.parquet` files, row by row.

Whether a file is read at once or streamed, a row is the same or is refused by the same words. Every row comes with
where it stands, for errors, and with the place behind it, from which reading can go on without what lies before.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hf_gpt.data.text_files import BYTE_ORDER_MARK
from hf_gpt.errors import CorpusError, did_you_mean


FORMATS = (".jsonl", ".json", ".csv", ".parquet")
# Options whose column rows may lack.
OPTIONAL_COLUMNS = ("tools_column",)
_PARQUET_ROWS = 256
_SHOWN_COLUMNS = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
# A byte that is no UTF-8 is read as one of these.
_BROKEN_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Malformed:
    """A row that cannot be read; the message says where it is and what is wrong."""

    message: str


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        where: File and line, for errors.
        values: What stands in it, by column, or what is wrong with it.
        position: From where reading goes on behind it, plain numbers.
    """

    where: str
    values: Any
    position: list[int]


def table_format(path: Path) -> str | None:
    """The format by the file's name, of a packed file by the name before `.gz`; None for other files."""
    suffix = (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()
    return suffix if suffix in FORMATS else None


def read_rows(
    path: Path, position: Sequence[int] | None = None, *, columns: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """The rows of a file, blank lines left out.

    A `.json` file holds an array of rows, one row, or a row in each line. All but parquet may be packed (`.gz`).

    Args:
        path: The file.
        position: Where to read on; None is the start. Packed files and `.json` arrays have no positions.
        columns: The option that names it, to the column that is read. A `.csv` or `.parquet` file must have them all;
            of the latter no others are read. Left out: all, whatever they are.

    Raises:
        CorpusError: the file is missing, packed in a damaged way, not of its format as a whole, or lacks a column.
    """
    kind = table_format(path)
    if kind is None or (kind == ".parquet" and path.suffix.lower() == ".gz"):
        raise CorpusError(f"{path}: unknown format. Give a {', '.join(FORMATS)} file.")
    try:
        if kind == ".parquet":
            yield from _parquet_rows(path, position, columns)
            return
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            if kind == ".csv":
                yield from _csv_rows(path, file, position, columns)
            else:
                yield from (_json_lines if kind == ".jsonl" else _json_rows)(path, file, position)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path}: cannot be read as {kind[1:]}: {error}. Check the file.") from error


def rows_of_lines(data: bytes, name: str) -> Iterator[Row]:
    """The rows of JSON lines that are no file, such as standard input, by the name that errors call it."""
    return _json_lines(name, io.BytesIO(data), None)


def is_one_value(path: Path) -> bool:
    """Whether a `.json` file is one array or object over several lines, which can be read only as a whole."""
    with path.open("rb") as file:
        return _is_one_value(file)


def text_in(row: Any, column: str, where: str) -> str | Malformed:
    """The text in a column of a row, empty where it is null; or what is wrong.

    Args:
        row: What `read_rows` or a data set gives.
        column: The column.
        where: Of the row, for errors.
    """
    if not isinstance(row, Mapping):
        return Malformed(f"{where}: a {type(row).__name__}, not an object with the key {column!r}")
    if column not in row:
        hint = did_you_mean(column, list(map(str, row))).rstrip(".")
        return Malformed(f"{where}: no {column!r}{hint} (--text_column)")
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        return Malformed(f"{where}: {column!r} is a {type(text).__name__}, not text")
    return Malformed(f"{where}: {column!r} is {broken_text(text)}") if has_broken_text(text) else text


def has_broken_text(value: Any) -> bool:
    """Whether a text in a value is none in UTF-8: a byte of a file that was no UTF-8, or half of a surrogate pair."""
    if isinstance(value, str):
        return not value.isascii() and _SURROGATE.search(value) is not None
    if isinstance(value, Mapping):
        return any(has_broken_text(key) or has_broken_text(item) for key, item in value.items())
    if not isinstance(value, (list, tuple)):
        return False
    return any(has_broken_text(item) for item in value if not isinstance(item, (int, float)))


def broken_text(value: Any) -> str:
    """What is wrong with a value that `has_broken_text`."""
    halves = "half of a surrogate pair, such as \\ud83d"
    return "not UTF-8" if isinstance(value, str) and _BROKEN_BYTE.search(value) else f"not UTF-8 ({halves})"


def check_columns(present: Sequence[str], columns: Mapping[str, str], where: str) -> None:
    """Looks for the columns that are read among those that a row or file has.

    Args:
        present: Those that there are.
        columns: The option that names it, to the column that must be there.
        where: The row or file, for the error.

    Raises:
        CorpusError: one is missing.
    """
    for option, column in columns.items():
        if column not in present and option not in OPTIONAL_COLUMNS:
            raise CorpusError(
                f"{where}: no column {column!r}{did_you_mean(column, list(map(str, present)))} Choose with --{option} "
                f"among {', '.join(map(str, present[:_SHOWN_COLUMNS]))}{', ...' * (len(present) > _SHOWN_COLUMNS)}."
            )


def advised(fault: Malformed) -> CorpusError:
    """The error that a malformed row is where rows are not gone over."""
    kind = "line" if ", line " in fault.message else "row"
    return CorpusError(f"{fault.message.rstrip('.')}. Mend or remove the {kind}.")


def parse_json(text: str, where: str) -> Any:
    """What a JSON text says, or what is wrong with it."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    # Brackets without end exhaust the stack; a number of thousands of digits is a plain ValueError.
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Malformed(f"{where}: {reason}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


class _Lines:
    """Lines of a UTF-8 file, each with its end, which may be `\\n`, `\\r\\n` or `\\r`; a byte that is no UTF-8 becomes
    a lone surrogate.

    Attributes:
        offset: The byte behind the line that was given last.
    """

    def __init__(self, file: BinaryIO, offset: int = 0):
        self.offset = offset
        file.seek(offset)
        self._text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")

    def __iter__(self) -> Iterator[str]:
        for line in self._text:
            is_first = self.offset == 0
            self.offset += len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))
            yield line.removeprefix(BYTE_ORDER_MARK) if is_first else line

    def detach(self) -> BinaryIO:
        """The file, which is then somewhere behind the lines that were given; no more can be asked for here."""
        return self._text.detach()


def _json_lines(path: Path | str, file: BinaryIO, position: Sequence[int] | None) -> Iterator[Row]:
    offset, number = position or (0, 0)
    lines = _Lines(file, offset)
    for line in lines:
        number += 1
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        if not line.isascii() and (found := _BROKEN_BYTE.search(line)):
            values: Any = Malformed(f"{where}: not UTF-8, byte 0x{ord(found[0]) - 0xDC00:02x}")
        else:
            values = parse_json(line, where)
        yield Row(where, values, [lines.offset, number])


def _json_rows(path: Path, file: BinaryIO, position: Sequence[int] | None) -> Iterator[Row]:
    """Rows of a `.json` file: those of an array, one object, or a row in each line."""
    if position is not None or not _is_one_value(file):
        yield from _json_lines(path, file, position)
        return
    file.seek(0)
    try:
        content = parse_json(file.read().decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        content = Malformed(f"{path}: {error}")
    if isinstance(content, Malformed):
        message = content.message.removeprefix(f"{path}: ")
        raise CorpusError(f"{path}: cannot be read as json: {message}. Check the file's format.")
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        yield Row(f"{path}, row {number}", row, [0, number])


def _is_one_value(file: BinaryIO) -> bool:
    """Whether the first line that is not blank is no whole object."""
    lines = _Lines(file)
    first = next((line.strip() for line in lines if line.strip()), "{}")
    lines.detach()
    return not (first.startswith("{") and first.endswith("}"))


def _csv_rows(
    path: Path, file: BinaryIO, position: Sequence[int] | None, columns: Mapping[str, str] | None
) -> Iterator[Row]:
    # The module's own limit of 128 KiB for a field is less than many documents.
    csv.field_size_limit(2**31 - 1)
    lines, number = _Lines(file), 0
    try:
        header = next(csv.reader(iter(lines), strict=True), [])
    except csv.Error as error:
        raise CorpusError(f"{path}: cannot be read as csv: first line: {error}. Check the file's format.") from error
    check_header(header, columns, path)
    if position is not None:
        offset, number = position
        lines = _Lines(lines.detach(), offset)
    rows = csv.reader(iter(lines), strict=True)
    while True:
        number += 1
        where = f"{path}, row {number}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(
                where, Malformed(f"{where}: {error}. Double a double quote within a field"), [lines.offset, number]
            )
            continue
        if not row:
            continue
        values: Any = dict(zip(header, row, strict=False))
        if len(row) != len(header):
            fields = f"{len(row)} fields instead of {len(header)}"
            values = Malformed(f"{where}: {fields}. Put a text with a comma in it between double quotes")
        yield Row(where, values, [lines.offset, number])


def check_header(names: Sequence[str], columns: Mapping[str, str] | None, path: Path) -> None:
    """Refuses a table that has a column twice or lacks one that is read.

    Raises:
        CorpusError: as said; the message names the column.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CorpusError(f"{path}: there are two columns {twice!r}. Rename or remove one of them.")
    check_columns(names, columns or {}, str(path))


def _parquet_rows(path: Path, position: Sequence[int] | None, columns: Mapping[str, str] | None) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    group, row = position or (0, 0)
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise CorpusError(f"{path}: cannot be read as parquet: {error}. Check the file's format.") from error
    with file:
        check_header(file.schema_arrow.names, columns, path)
        wanted = list(dict.fromkeys(columns.values())) if columns else None
        for index in range(group, file.num_row_groups):
            done = row if index == group else 0
            seen = 0
            for batch in file.iter_batches(_PARQUET_ROWS, row_groups=[index], columns=wanted):
                if seen + len(batch) <= done:
                    seen += len(batch)
                    continue
                for values in _batch_rows(batch.slice(max(0, done - seen))):
                    done = max(done, seen) + 1
                    where = f"{path}, row group {index}, row {done}"
                    if isinstance(values, Malformed):
                        values = Malformed(f"{where}: {values.message}")
                    yield Row(where, values, [index, done])
                seen += len(batch)


def _batch_rows(batch: Any) -> Iterator[Any]:
    """The rows of a batch; one that Python cannot hold, such as text that is no UTF-8, is `Malformed`."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for row in range(len(batch)):
            try:
                yield batch.slice(row, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield Malformed(f"not UTF-8 ({error})" if isinstance(error, UnicodeDecodeError) else str(error))
