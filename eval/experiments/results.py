"""Measured points of an experiment in one file, kept after each, so that a run that was stopped goes on from there."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_gpt.files.atomic_files import write_json


class Results:
    """The measured points of every seed.

    Args:
        path: The JSON file; it need not be there yet.
        settings: What a point depends on besides its name and seed.

    Attributes:
        points: By `"seed/name"`; each holds its figures and `seconds`, the CPU time that it took.

    Raises:
        SystemExit: the file holds points of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self.points: dict[str, dict[str, Any]] = {}
        self.settings = settings
        if path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["settings"] != settings:
                raise SystemExit(f"error: {path} holds results of other settings. Choose another --output_dir.")
            self.points = saved["points"]

    def point(self, seed: int, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The point of that name, measured unless it is there already."""
        key = f"{seed}/{name}"
        if key not in self.points:
            began = time.process_time()
            self.points[key] = {**measure(), "seconds": round(time.process_time() - began, 1)}
            written = {"settings": self.settings, "points": self.points}
            write_json(self.path, written)
            print(f"seed {seed}  {name:32} {json.dumps(self.points[key])}", flush=True)
        return self.points[key]
