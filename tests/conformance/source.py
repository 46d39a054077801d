"""Fetches the tests that ship inside the source distribution of the installed Transformers."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".conformance"


class SourceUnavailableError(RuntimeError):
    """The source distribution could be neither found nor downloaded."""


def installed_version() -> str:
    """Version of the Transformers package that is under test."""
    return importlib.metadata.version("transformers")


def cache_dir(version: str | None = None) -> Path:
    """Folder, ignored by git, that holds everything fetched or made for one version."""
    return CACHE / (version or installed_version())


def tests_dir(version: str | None = None) -> Path:
    """Folder of the unpacked test files."""
    return cache_dir(version) / "tests"


def fetch(version: str | None = None) -> Path:
    """Returns the unpacked test folder, downloading the archive only when it is not there yet."""
    version = version or installed_version()
    target = tests_dir(version)
    if target.is_dir():
        return target

    folder = cache_dir(version)
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"transformers-{version}.tar.gz"
    if not archive.is_file():
        _download(version, folder)
    if not archive.is_file():
        raise SourceUnavailableError(f"pip downloaded something else than {archive.name}: {os.listdir(folder)}")

    # Unpacking aside and renaming keeps an interrupted run from leaving half a folder that looks complete.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _unpack_tests(archive, version, Path(scratch))
        try:
            (Path(scratch) / "tests").rename(target)
        except OSError:
            if not target.is_dir():
                raise
    archive.unlink()
    return target


def _download(version: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += [f"transformers=={version}", "--dest", str(folder)]
    print(f"fetching the source distribution of transformers {version} ...", flush=True)
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise SourceUnavailableError(
            f"Could not download the source distribution of transformers {version}.\n"
            f"Offline? Put transformers-{version}.tar.gz into {folder} and run again.\n"
            f"{result.stderr.strip()[-2000:]}"
        )


def _unpack_tests(archive: Path, version: str, scratch: Path) -> None:
    """Unpacks only the test files and checks that they are those of `version`."""
    prefix = f"transformers-{version}/"
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        if f"{prefix}PKG-INFO" not in names:
            raise SourceUnavailableError(f"{archive} is not the source distribution of transformers {version}")
        wanted = [tar.getmember(name) for name in names if name.startswith(f"{prefix}tests/")]
        if not wanted:
            raise SourceUnavailableError(f"{archive} carries no tests")
        tar.extractall(scratch, members=wanted, filter="data")
    shutil.move(scratch / prefix / "tests", scratch / "tests")
