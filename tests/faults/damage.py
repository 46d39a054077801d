"""What can happen to a file, and what a folder holds."""

import random
from collections.abc import Callable
from pathlib import Path

import xxhash


def cut(path: Path) -> None:
    """The end is lost, as on a full disk."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    """The name is there and the content never was, as after a loss of power."""
    path.write_bytes(b"")


def lose(path: Path) -> None:
    """It is gone."""
    path.unlink()


def scribble(path: Path) -> None:
    """A few bytes in the last third are others; the size stays."""
    content = bytearray(path.read_bytes())
    start = len(content) * 2 // 3
    for at in random.Random(0).sample(range(start, len(content)), min(8, len(content) - start)):
        content[at] ^= 0x15
    path.write_bytes(content)


def zero(path: Path) -> None:
    """The last page reads as zeros, as after a loss of power on some file systems."""
    content = path.read_bytes()
    kept = max(0, len(content) - 4096) if len(content) > 4096 else len(content) // 2
    path.write_bytes(content[:kept] + bytes(len(content) - kept))


DAMAGES: dict[str, Callable[[Path], None]] = {each.__name__: each for each in (cut, empty, lose, scribble, zero)}


def files_of(folder: Path) -> list[str]:
    """Names of the files in a folder and its folders."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def digests(folder: Path) -> dict[str, str]:
    """A checksum of every file in a folder and its folders."""
    return {name: xxhash.xxh3_128_hexdigest((folder / name).read_bytes()) for name in files_of(folder)}
