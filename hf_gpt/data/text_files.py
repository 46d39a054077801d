"""Text files as every command reads them: UTF-8, without a byte-order mark, with one kind of line end.

A file from Windows (`\\r\\n`), from an old Mac (`\\r`) or of mixed origin gives the text that a Unix file gives.
"""

import gzip
import re
import shlex
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_gpt.errors import CorpusError


BYTE_ORDER_MARK = "\ufeff"
# A text without separators is parted into documents of about this size, after a line end.
MAX_DOCUMENT_BYTES = 2**22
_CHUNK_BYTES = 2**20
_LINE_END = rb"(?:\r\n|\r(?!\n)|\n)"
# What else may part a file, for the advice where a separator never occurs.
_COMMON_SEPARATORS = ("\n\n", "<|endoftext|>", "</s>", "\n---\n", "\n***\n", "\f", "\x1e", "\n")
_SHOWN_SEPARATORS = 3


def fold_line_ends(text: str) -> str:
    """The text with each `\\r\\n` and each lone `\\r` turned into `\\n`."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def parse_separator(document_separator: str) -> str:
    """The separator with its line ends folded; `\\n`, `\\r` and `\\t` may be written out.

    Raises:
        CorpusError: it is empty.
    """
    separator = document_separator.replace("\\r", "\r").replace("\\n", "\n").replace("\\t", "\t")
    if not separator:
        raise CorpusError("--document_separator must not be empty. Leave it out to keep each file whole.")
    return fold_line_ends(separator)


def decode_text(data: bytes, source: str) -> str:
    """UTF-8 bytes as text, without byte-order mark, with folded line ends.

    Args:
        data: A whole file, or standard input.
        source: Its name, for errors.

    Raises:
        CorpusError: it is not UTF-8; the message names the byte where it fails.
    """
    _check_encoding(data[:4096], source)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(_not_utf8(data, error, source)) from None
    return fold_line_ends(text.removeprefix(BYTE_ORDER_MARK))


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in `.gz`.

    Raises:
        CorpusError: it cannot be read or unpacked.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror or error}.") from error
    try:
        return gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path}: cannot be unpacked: {error}. Check that the file is whole.") from error


def read_text(path: Path) -> str:
    """The text of a file, as `decode_text` gives it.

    Raises:
        CorpusError: it cannot be read, is not UTF-8, is empty or blank.
    """
    data = read_bytes(path)
    text = decode_text(data, str(path))
    if not text.strip():
        state = "blank" if data else "empty"
        raise CorpusError(f"{path}: no text found, the file is {state}. Give a file with text in it.")
    return text


def split_text(text: str, separator: str | None) -> list[str]:
    """The documents of a text, blank ones left out; without a separator the text is one document."""
    return [part for part in ([text] if separator is None else text.split(separator)) if part.strip()]


def absent_separator(separator: str, texts: Sequence[str]) -> str | None:
    """What to say where a separator occurs in none of the texts; None where it does occur.

    Args:
        separator: As `parse_separator` gives it.
        texts: The files, or what was read of them.
    """
    if not texts or any(separator in text for text in texts):
        return None
    counts = {other: sum(text.count(other) for text in texts) for other in _COMMON_SEPARATORS}
    found = [f"{other!r} {count:,} times" for other, count in counts.items() if count][:_SHOWN_SEPARATORS]
    instead = f"There is {', '.join(found)}." if found else "It has no line end either."
    files = "the file" if len(texts) == 1 else f"any of the {len(texts)} files"
    return f"--document_separator {separator!r} does not occur in {files}, so each file is one document. {instead}"


def stream_documents(
    path: Path, separator: str | None, position: Sequence[int] | None = None
) -> Iterator[tuple[str | CorpusError, list[int]]]:
    """The documents of a text file one by one, in memory for one, those that `split_text` makes of the whole file.

    Without separators a long text is parted after line ends, into documents of about `MAX_DOCUMENT_BYTES`.

    Args:
        path: The file, not packed.
        separator: As `parse_separator` gives it.
        position: Byte offset to read on from, in a list; None is the start.

    Yields:
        A document, or what is wrong with it; and the place behind it.
    """
    pattern = None if separator is None else _pattern(separator)
    offset = 0 if position is None else position[0]
    with path.open("rb") as file:
        head = file.read(4096)
        _check_encoding(head, str(path))
        if offset == 0 and head.startswith(BYTE_ORDER_MARK.encode()):
            offset = len(BYTE_ORDER_MARK.encode())
        file.seek(offset)
        # The rest of the buffer begins at `start`; moving it only when more is read keeps short documents cheap.
        buffer, start, ended = b"", 0, False
        while start < len(buffer) or not ended:
            match = None if pattern is None else pattern.search(buffer, start)
            # A separator at the buffer's very end may go on: the other half of a line end is not read yet.
            is_whole = match is not None and (ended or match.end() < len(buffer))
            if not is_whole and not ended and len(buffer) - start < MAX_DOCUMENT_BYTES:
                chunk = file.read(_CHUNK_BYTES)
                ended = not chunk
                buffer, start = buffer[start:] + chunk, 0
                continue
            if is_whole:
                end, after = match.span()
            else:
                end = after = len(buffer) if ended else _text_end(buffer, start)
            document, begin = buffer[start:end], offset
            offset, start = offset + after - start, after
            yield _decoded(document, path, begin), [offset]


def _decoded(document: bytes, path: Path, begin: int) -> str | CorpusError:
    try:
        return fold_line_ends(document.decode("utf-8"))
    except UnicodeDecodeError as error:
        where = f"byte 0x{document[error.start]:02x} at offset {begin + error.start}"
        return CorpusError(f"{path}: not UTF-8, {where} ({error.reason})")


def _pattern(separator: str) -> re.Pattern[bytes]:
    """Matches what becomes the separator when line ends are folded."""
    return re.compile(_LINE_END.join(re.escape(part.encode("utf-8")) for part in separator.split("\n")))


def _text_end(buffer: bytes, start: int) -> int:
    """Where to cut a text that goes on: after the last line end, else before the last character."""
    # A `\r` at the very end may be the first half of a line end.
    cut = max(buffer.rfind(b"\n", start), buffer.rfind(b"\r", start, len(buffer) - 1)) + 1
    if cut <= start:
        cut = len(buffer) - 1
        while cut > start + 1 and buffer[cut] & 0xC0 == 0x80:
            cut -= 1
    return cut


def _check_encoding(head: bytes, source: str) -> None:
    """Refuses UTF-16 and UTF-32, of which the former without a mark is UTF-8 full of zero bytes."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CorpusError(f"{source}: not UTF-8 at byte 0, but UTF-16 or UTF-32. {_conversion('UTF-16', source)}")
    if len(head) >= 8 and head.count(0) * 3 > len(head):
        raise CorpusError(
            f"{source}: {head.count(0) / len(head):.0%} of its first bytes are zero, as in UTF-16 without a mark. "
            f"{_conversion('UTF-16LE' if head[1::2].count(0) > head[::2].count(0) else 'UTF-16BE', source)}"
        )


def _not_utf8(data: bytes, error: UnicodeDecodeError, source: str) -> str:
    return (
        f"{source}: not UTF-8 at byte {error.start}, byte 0x{data[error.start]:02x} at offset {error.start} "
        f"({error.reason}). {_conversion('WINDOWS-1252', source)}"
    )


def _conversion(encoding: str, source: str) -> str:
    path = Path(source)
    names = shlex.quote(path.name), shlex.quote(f"{path.stem}.utf8{path.suffix}")
    return f"Convert it, for example: iconv -f {encoding} -t UTF-8 {names[0]} > {names[1]}"
