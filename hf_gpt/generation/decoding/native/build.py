"""Compiles `step.c` once on a machine and loads it."""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


logger = logging.getLogger(__name__)

# Seconds that a compiler is given: it takes one to three.
TIME_LIMIT = 120

_FLAGS = ["-std=gnu11", "-O3", "-fvisibility=hidden", "-fPIC", "-shared"]
# No -ffast-math: infinities and NaN stay.
_FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fno-strict-aliasing"]
# Some compilers know the machine under one of these names only.
_MACHINE_FLAGS = (["-march=native"], ["-mcpu=native"], [])
_LIBRARIES = ["-lm", "-lpthread"]


def library() -> ctypes.CDLL | None:
    """The compiled steps, or None: no compiler, one that fails, or `HF_GPT_NATIVE=0` in the environment.

    The first call on a machine compiles for one to three seconds. The library is kept in `XDG_CACHE_HOME`, else in
    `~/.cache`. If there is none, the logger of this module says why at level INFO.
    """
    if os.environ.get("HF_GPT_NATIVE", "1").lower() in ("0", "false", "off"):
        return None
    return _built()


@functools.cache
def _built() -> ctypes.CDLL | None:
    try:
        return build(cache_folder())
    except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
        # A compiler that was named should work.
        level = logging.WARNING if os.environ.get("CC") else logging.INFO
        logger.log(level, "decoding steps are not compiled, PyTorch does them: %s", error)
        return None


def build(folder: Path) -> ctypes.CDLL:
    """Loads the library from a folder, compiled if it is not there.

    Raises:
        OSError, RuntimeError, subprocess.SubprocessError: no compiler, or one that fails.
    """
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError("there is no C compiler: install gcc or clang, or set CC.")
    key = _key(compiler)
    for found in sorted(folder.glob(f"{key}-*.so")):
        # Loading a truncated file would crash the process.
        if _digest(found.read_bytes()) == found.stem.split("-")[1]:
            try:
                return ctypes.CDLL(str(found))
            except OSError as error:
                logger.info("%s does not load, compiling again: %s", found, error)
        found.unlink(missing_ok=True)
    with _work_folder(folder) as work:
        made = Path(work) / "step.so"
        _compile(compiler, made)
        loaded = ctypes.CDLL(str(made))
        with contextlib.suppress(OSError):
            # Named by its digest and moved in one piece, so that a reader can tell that it is whole.
            os.replace(made, folder / f"{key}-{_digest(made.read_bytes())}.so")
    return loaded


def _work_folder(folder: Path) -> tempfile.TemporaryDirectory:
    """A temporary folder inside `folder`, or elsewhere if that is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return tempfile.TemporaryDirectory(dir=folder)
    except OSError as error:
        logger.info("compiled steps cannot be kept in %s: %s", folder, error)
        return tempfile.TemporaryDirectory()


def cache_folder() -> Path:
    """Where the compiled library is kept. Raises `RuntimeError` where there is no home folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    default = (
        Path.home() / ("Library/Caches" if platform.system() == "Darwin" else ".cache") if not base else Path(base)
    )
    return default / "hf_gpt" / "native"


def find_compiler() -> list[str] | None:
    """The command of a C compiler: `CC`, else the first of cc, gcc and clang; None if there is none.

    Raises:
        RuntimeError: `CC` is no command.
    """
    if os.name != "posix" or platform.machine().lower() not in ("x86_64", "amd64", "aarch64", "arm64"):
        return None
    try:
        given = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise RuntimeError(f"CC={os.environ['CC']} cannot be read as a command: {error}.") from error
    for command in [given] if given else [["cc"], ["gcc"], ["clang"]]:
        if (path := shutil.which(command[0])) is not None:
            return [path, *command[1:]]
    if given:
        raise RuntimeError(f"CC={os.environ['CC']}: there is no command {given[0]}.")
    return None


def sources() -> list[Path]:
    """`step.c` and what it includes."""
    return sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".c", ".h"))


def _key(compiler: list[str]) -> str:
    """A digest of source, flags, compiler and processor."""
    stat = os.stat(os.path.realpath(compiler[0]))
    parts = [path.read_bytes() for path in sources()]
    parts += [repr((compiler, stat.st_size, stat.st_mtime_ns, _FLAGS, _MACHINE_FLAGS)).encode(), *_processor()]
    return _digest(b"\0".join(parts))


def _processor() -> Iterator[bytes]:
    yield platform.machine().encode()
    yield platform.processor().encode()
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return
    seen = set()
    for line in info.read_bytes().splitlines():
        name = line.split(b":")[0].strip()
        if name in (b"model name", b"flags", b"Features", b"CPU part") and name not in seen:
            seen.add(name)
            yield line


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]


def _compile(compiler: list[str], target: Path) -> None:
    errors = ""
    source = next(path for path in sources() if path.suffix == ".c")
    for machine in _MACHINE_FLAGS:
        command = [*compiler, *_FLAGS, *machine, str(source), "-o", str(target), *_LIBRARIES]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=TIME_LIMIT)
        if done.returncode == 0 and target.exists():
            return
        errors = errors or done.stderr.strip()
    raise RuntimeError(f"{shlex.join(compiler)} fails: {errors[:500]}")
