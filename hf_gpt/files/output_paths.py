"""Whether a folder or file can be written, found out before hours of work. Imports nothing heavy."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


# Options of commands that name what is written.
OUTPUTS = ("output_dir", "output", "destination")


def why_not_writable(path: str | os.PathLike) -> str | None:
    """What keeps a file or folder from being written at a path; None where nothing does. Leaves nothing behind."""
    folder = path = Path(path)
    try:
        # Of os.path, which takes a name that cannot be for one that is not there.
        while not os.path.exists(folder):
            if os.path.islink(folder):
                return f"{folder} is a link that leads nowhere"
            folder = folder.parent
        if folder != path and not folder.is_dir():
            return f"{folder} is a file"
        if not folder.is_dir():
            return None if os.access(folder, os.W_OK) else f"{folder} may not be written"
        with tempfile.TemporaryDirectory(prefix=".hf_gpt-", dir=folder) as probe:
            # A name that is too long, or has a character that the file system does not take.
            (Path(probe) / path.name).mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return reason if folder == path else f"in {folder}: {reason}"
    return None


def wrong_output(values: Mapping[str, object]) -> str | None:
    """The sentence about the first option that names what cannot be written; None where all can.

    Args:
        values: Options by name; those of `OUTPUTS` are looked at.
    """
    for name in OUTPUTS:
        value = values.get(name)
        if not isinstance(value, (str, os.PathLike)) or not str(value):
            continue
        shown = name if name == "destination" else f"--{name}"
        if name == "output_dir" and os.path.isfile(value):
            return f"{shown} {value} is a file. Name a folder."
        if (reason := why_not_writable(value)) is not None:
            return f"{shown} {value} cannot be written: {reason}. Choose another path."
    return None


def wrong_cache() -> str | None:
    """The sentence about a cache folder of the Hugging Face libraries that cannot be written; None where it can."""
    from huggingface_hub import constants

    name = next((name for name in ("HF_DATASETS_CACHE", "HF_HOME") if os.environ.get(name)), None)
    folder = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    if (reason := why_not_writable(folder)) is None:
        return None
    shown = f"{name}={os.environ[name]}" if name else f"the cache folder {constants.HF_HOME}"
    return f"{shown} cannot be written: {reason}. Data sets are kept there: set HF_HOME to a folder that can be."
