"""One run a folder: who writes into it holds a lock, which the system takes back when the process ends, however."""

import atexit
import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from hf_gpt.errors import CheckpointError


try:
    import fcntl
except ImportError:  # Windows: no lock, so nothing is refused.
    fcntl = None


LOCK_NAME = ".run_lock.json"
# The folders whose lock this process holds, with the open file and whether the folder was made for it.
_held: dict[Path, tuple[int, bool]] = {}


def claim_run(folder: Path) -> None:
    """Takes the lock of a folder, which is made if it is missing, until `release_runs` or the end of the process.

    File systems without locks let everyone in.

    Raises:
        CheckpointError: another process holds it; the message says which.
    """
    folder = Path(os.path.realpath(folder))
    _release(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    while (handle := _open(folder / LOCK_NAME)) is not None:
        if not _lock(handle):
            holder = _describe(handle)
            os.close(handle)
            raise CheckpointError(_refusal(folder, holder))
        if _is_at(folder / LOCK_NAME, handle):
            break
        # The one who held it took the file away in between.
        os.close(handle)
    if handle is None:
        return
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    content = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(content).encode(), 0)
    _held[folder] = handle, is_new


def refuse_live_run(folder: Path) -> None:
    """Raises `CheckpointError` where another process holds the lock of a folder."""
    folder = Path(os.path.realpath(folder))
    path = folder / LOCK_NAME
    # Closing any handle of a file gives up all locks of this process on it.
    if folder in _held or not path.is_file() or (handle := _open(path)) is None:
        return
    try:
        if not _lock(handle):
            raise CheckpointError(_refusal(folder, _describe(handle)))
    finally:
        os.close(handle)


@contextlib.contextmanager
def releases_runs() -> Iterator[None]:
    """Gives up the locks that are taken inside, when the block ends."""
    before = set(_held)
    try:
        yield
    finally:
        for folder in set(_held) - before:
            _release(folder)


@atexit.register
def release_runs() -> None:
    """Gives up all locks of this process; folders that were made for them and have stayed empty go."""
    for folder in list(_held):
        _release(folder)


def _release(folder: Path) -> None:
    handle, is_new = _held.pop(folder, (None, False))
    if handle is None:
        return
    with contextlib.suppress(OSError):
        if _is_at(folder / LOCK_NAME, handle):
            (folder / LOCK_NAME).unlink()
    os.close(handle)
    if is_new:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _open(path: Path) -> int | None:
    """A handle of the file; None where there are no locks or it cannot be written."""
    if fcntl is None:
        return None
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    return None


def _lock(handle: int) -> bool:
    """Takes the lock; False if another process has it. Of POSIX, which the children of a process do not inherit."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        # This file system has no locks.
        return True
    return True


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False


def _describe(handle: int) -> str:
    try:
        content = json.loads(os.pread(handle, 4096, 0))
        return f"process {content['process']} on {content['host']}, since {content['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _refusal(folder: Path, holder: str) -> str:
    return (
        f"--output_dir {folder} is in use by a run: {holder}. Wait until it ends, stop it, or choose another folder; "
        "--overwrite_output_dir does not replace a run that goes on."
    )
