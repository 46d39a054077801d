"""The list of a checkpoint's files with sizes and checksums, by which damage is found before anything is loaded."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import xxhash

from hf_gpt.files.atomic_files import write_json


MANIFEST_NAME = "manifest.json"
_CHUNK = 2**22


def write_manifest(folder: Path) -> None:
    """Writes the manifest of a folder whose files are complete: of each file its name, bytes and xxh3_128 checksum.

    It is written last, so that what it names has been written before it.
    """
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "xxh3_128": _digest_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_NAME
    }
    write_json(folder / MANIFEST_NAME, {"version": 1, "files": files})


def has_manifest(folder: Path) -> bool:
    """Whether a folder has one; checkpoints made before there were manifests, or by others, have none."""
    return (folder / MANIFEST_NAME).is_file()


def differences(folder: Path) -> Iterator[str]:
    """What is not as the manifest of a folder says, each as the end of "it ..."; nothing where there is no manifest."""
    if not has_manifest(folder):
        return
    try:
        content = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        expected = {str(name): (int(entry["bytes"]), entry["xxh3_128"]) for name, entry in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        yield f"has a {MANIFEST_NAME} that is damaged or cut off"
        return
    for name, (size, digest) in expected.items():
        lacks = list(size_difference(folder, name, size))
        yield from lacks
        if not lacks and _digest_of(folder / name) != digest:
            yield (
                f"has a {name} that is damaged: it is not what was written, by its checksum in {MANIFEST_NAME}. Delete "
                f"{MANIFEST_NAME} if you changed the file yourself"
            )


def size_difference(folder: Path, name: str, size: int) -> Iterator[str]:
    """That a file is not there or has other than `size` bytes, as the end of "it ...", if so."""
    path = folder / name
    if not path.is_file():
        yield f"has no {name}"
    elif path.stat().st_size != size:
        yield f"has a {name} of {path.stat().st_size:,} bytes, and {size:,} were written"


def _digest_of(path: Path) -> str:
    status = path.stat()
    return _digest(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, *_: int) -> str:
    """The checksum of a file; read once while its inode, size and time stay as they are."""
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
