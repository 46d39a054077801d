"""Access tokens in files that are about to be uploaded, however a file spells them."""

import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


# By the prefixes that vendors document: Hugging Face, OpenAI and Anthropic, GitHub, GitLab, AWS, Google, Slack, PyPI.
_PATTERNS = (
    r"hf_[A-Za-z0-9]{30,}",
    r"sk-[A-Za-z0-9_-]{20,}",
    r"gh[pousr]_[A-Za-z0-9]{36,}",
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"glpat-[A-Za-z0-9_-]{20,}",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])",
    r"AIza[A-Za-z0-9_-]{35}",
    r"xox[abeprs]-[A-Za-z0-9-]{20,}",
    r"pypi-[A-Za-z0-9_-]{50,}",
)
# A letter or digit before makes it a part of another word; an underscore does not, as in MY_hf_...
TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_PATTERNS)})")
_PNG, _LONGEST_HEADER = b"\x89PNG\r\n\x1a\n", 100_000_000


def holds_token(path: Path) -> bool:
    """Whether a file holds an access token: as it stands, escaped in JSON, as UTF-16, or in what a binary file says.

    Weights themselves are numbers: of a safetensors file the header is read alone.
    """
    return any(TOKEN.search(text) for text in _texts(path))


def without_tokens(message: object) -> str:
    """A message with stars in place of what looks like an access token."""
    return TOKEN.sub("***", str(message))


def _texts(path: Path) -> Iterator[str]:
    """What a file says, in every form that a reader of it would see."""
    if path.suffix == ".safetensors":
        yield from _spellings(_header(path))
        return
    content = path.read_bytes()
    yield from _spellings(content)
    if content.startswith(_PNG):
        for chunk in _png_chunks(content):
            yield from _spellings(chunk)


def _spellings(content: bytes) -> Iterator[str]:
    yield content.decode("latin-1")
    if b"\0" in content:
        # UTF-16 of plain letters, in either order of bytes.
        yield content.replace(b"\0", b"").decode("latin-1")
    try:
        yield from _strings(json.loads(content))
    except (ValueError, RecursionError):
        return


def _strings(value: Any) -> Iterator[str]:
    """The strings of a JSON value, keys among them."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each


def _header(path: Path) -> bytes:
    """The JSON at the start of a safetensors file; empty where there is none."""
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return file.read(size) if size <= _LONGEST_HEADER else b""


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """Texts of an image that are stored compressed."""
    position = len(_PNG)
    while position + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[position : position + 8])
        body = content[position + 8 : position + 8 + size]
        position += 12 + size
        if kind in (b"zTXt", b"iTXt"):
            for start in range(len(body)):
                if body[start : start + 1] == b"\x78":
                    try:
                        yield zlib.decompress(body[start:])
                        break
                    except zlib.error:
                        continue
