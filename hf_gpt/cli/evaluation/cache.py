"""Records of finished tasks as files, so that a run that was stopped goes on."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from hf_gpt.files.atomic_files import write_text
from hf_gpt.version import __version__


# To be raised when records of the same facts come out otherwise; 2: real texts are halved with copies on one side.
_FORM = 2


class Cache:
    """Records in a folder, each under what it depends on.

    Args:
        folder: Made with the first record.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, task: str, model: str, facts: Any) -> Path:
        """Where the record lies of a model on a task under these facts, anything that JSON takes."""
        key = json.dumps([__version__, _FORM, facts], sort_keys=True, default=str)
        names = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{task}--{model}")[:80]
        return self.folder / f"{names}--{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def get(self, path: Path) -> dict[str, Any] | None:
        """The record, or None where there is none that can be read."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put(self, path: Path, record: dict[str, Any]) -> None:
        """Keeps a record, whole or not at all."""
        write_text(path, json.dumps(record, ensure_ascii=False))
