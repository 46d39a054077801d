"""Memory that a process keeps between steps, on CPUs under glibc."""

import contextlib
import ctypes
import os
from collections.abc import Iterator


# https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MMAP_MAX = 65536
# What glibc's own adjustment ends at in a process that frees large blocks; setting any of the three switches it off.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = 2**25, 2**26

# A training run may begin another one, of a judge for example.
_users = 0


@contextlib.contextmanager
def keeps_freed_memory(enabled: bool = True) -> Iterator[None]:
    """Inside, freed memory stays with the process; afterwards what is free goes back to the system.

    glibc gives large blocks back as soon as they are freed. Every tensor of the next step then meets pages that the
    system has to clear first, which costs as much as computing on it. Where there is no glibc, nothing changes.
    Blocks of different sizes fit less well into memory that is kept, so the peak may be somewhat higher.
    """
    global _users
    libc = _glibc() if enabled else None
    if libc is None:
        yield
        return
    if _users == 0:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if _users == 0:
            libc.mallopt(_M_MMAP_MAX, _MMAP_MAX)
            libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
            libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
            libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        is_glibc = os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, ValueError, OSError):
        return None
    return ctypes.CDLL(None) if is_glibc else None
