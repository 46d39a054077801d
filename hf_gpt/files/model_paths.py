"""What a name given for a model or data set means: a folder here, or an id of the Hub. Imports nothing heavy."""

import contextlib
import difflib
import os
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from hf_gpt.errors import CheckpointError, CorpusError


# What people call the folder of their runs, as this package does.
_RUNS = ("runs/", "checkpoints/", "outputs/", "models/")
# An id of the Hub: a name, or owner and name.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
# Seconds that the Hub is given to answer at all.
_TIME_LIMIT = 5

_FILES = {
    ".gguf": "a GGUF file, of llama.cpp: make a checkpoint of it first (hf-gpt convert FILE.gguf FOLDER)",
    ".ggml": "a GGML file, of old versions of llama.cpp: take the Hugging Face checkpoint that it was made from",
    ".bin": "a file of weights: give the folder with its config.json, saved as safetensors",
    ".safetensors": "a file of weights: give the folder that holds it and its config.json",
    ".onnx": "an ONNX graph, which has no weights to train on by name: take the checkpoint that it was exported from",
    ".zip": "an archive: unpack it and give the folder with config.json",
    ".gz": "an archive: unpack it and give the folder with config.json",
    ".tar": "an archive: unpack it and give the folder with config.json",
    ".json": "a file of settings: give the folder that holds it and the weights",
}


class NotFoundError(CheckpointError, CorpusError, FileNotFoundError):
    """There is nothing of that name, here or on the Hub: a `ValueError` and an `OSError`, whichever is caught."""


def describe_file(path: str | os.PathLike) -> str | None:
    """What a single file is that is given for a model, by its first bytes or its name; None where neither tells."""
    return _FILES[".gguf"] if is_gguf(path) else _FILES.get(Path(path).suffix.lower())


def is_gguf(path: str | os.PathLike) -> bool:
    """Whether a file is one of llama.cpp, by its first bytes."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(4) == b"GGUF"
    return False


def looks_like_path(name: str) -> bool:
    """Whether a name can only mean a file or folder here: it is none that the Hub has, or its first part is here."""
    first = name.partition("/")[0]
    return (
        not _HUB_ID.match(name)
        or name.startswith(_RUNS)
        or Path(name).suffix.lower() in _FILES
        or ("/" in name and Path(first).is_dir())
    )


def check_exists(name: str, option: str | None = None, kind: Literal["model", "data set"] = "model") -> None:
    """Refuses a name that leads nowhere, before the Hub is asked for it again and again.

    The Hub is tried, once, unless the libraries are offline or have something of that id in their cache.

    Args, Raises: as `check_path`; also for an id of a Hub that does not answer.
    """
    if not check_path(name, option, kind):
        _check_hub(name, "" if option is None else f"--{option} {name}: ", kind)


def check_path(name: str, option: str | None = None, kind: Literal["model", "data set"] = "model") -> bool:
    """Whether a name is a path that is there; if not, it is an id of the Hub, which is not asked.

    Args:
        name: A path, or an id of the Hub.
        option: That it was given by, for the message.
        kind: What it is looked up as.

    Raises:
        NotFoundError: a path that is not there.
    """
    start = "" if option is None else f"--{option} {name}: "
    if not name.strip():
        raise NotFoundError(f"{start}the name of the {kind} is empty. Give a folder, or a Hub id (owner/name).")
    try:
        exists = Path(name).expanduser().exists()
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{start}{name[:80]!r} is no path: {error}.") from error
    if not exists and looks_like_path(name):
        raise NotFoundError(f"{start}there is no folder {name}{_nearest(name)}")
    return exists


def _nearest(name: str) -> str:
    """The end of the sentence: what is nearest to it among the folders that are there."""
    path = Path(name.replace("\\", "/")).expanduser()
    missing = next((part for part in [*reversed(path.parents), path] if not part.exists()), path)
    try:
        beside = sorted(entry.name for entry in missing.parent.iterdir() if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        beside = []
    near = difflib.get_close_matches(missing.name, beside, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {missing.parent / near[0] / path.relative_to(missing)}?"
    if missing != path and missing.parent != Path():
        return f": {missing} is not there. Give a run's folder, a checkpoint, or a Hub id (owner/name)."
    return ". Give a run's folder, a checkpoint, or a Hub id (owner/name)."


def _check_hub(name: str, start: str, kind: str) -> None:
    """Whether the Hub answers at all. The library would ask for each file again and again, for minutes."""
    from huggingface_hub import constants

    folder = f"{kind.replace(' ', '')}s--{name.replace('/', '--')}"
    # Offline the library looks into its cache alone, and says so at once. Behind a proxy it knows the way.
    if constants.HF_HUB_OFFLINE or (Path(constants.HF_HUB_CACHE) / folder).is_dir() or urllib.request.getproxies():
        return
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=_TIME_LIMIT).close()
    except OSError as error:
        raise NotFoundError(
            f"{start}there is no folder {name}, and the Hub ({address.hostname}), which may have a {kind} of that id, "
            f"cannot be reached: {error}. Check the name, or the network."
        ) from error


def optional_file(name_or_path: str, name: str, **source: Any) -> Path | None:
    """A file of a checkpoint that not every checkpoint has, fetched from the Hub if need be; None where it is not.

    A Hub that cannot be reached counts as one without the file: what is in the cache stays usable.

    Args:
        name_or_path: A folder, or an id of the Hub.
        name: Of the file.
        source: `subfolder` and `revision`, as for `from_pretrained`.
    """
    from transformers.utils.hub import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = cached_file(name_or_path, name, **quiet, **source)
    return None if found is None else Path(found)
