"""Files that are whole or not there: a reader finds the old file or the new one, never half of it."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replaces_file(path: Path) -> Iterator[Path]:
    """Yields a free path beside `path`; the file written there takes its place when the block ends without an error.

    The folder is made if it is missing. Nothing is left behind after an error. A link stays a link: the file it names
    is replaced. A device or a pipe is written directly.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder outlast a loss of power, where the system can do that."""
    # Windows opens no folder, and some network file systems sync none.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Has all files and folders in a folder, and itself, outlast a loss of power.

    Raises:
        OSError: a file cannot be written out; some file systems say only now that they are full.
    """
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(where, name)
            if path.is_symlink() or not path.is_file():
                continue
            # Systems sync by a handle that may write; a file may be read-only.
            handle = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(where))


def write_bytes(path: Path, content: bytes) -> Path:
    """Writes a file whole or not at all; returns its path."""
    with replaces_file(path) as draft:
        draft.write_bytes(content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Writes a text as UTF-8, whole or not at all; a lone surrogate, which is no character, becomes an escape."""
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> Path:
    """Writes what JSON can hold, with a line end after it, whole or not at all."""
    return write_text(path, json.dumps(content, indent=indent) + "\n")
