"""What an experiment has measured or trained, in files, so that a run that was stopped goes on from there."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_gpt.files.atomic_files import replaces_file, write_json


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def kept(path: Path, measure: Callable[[], Any]) -> Any:
    """The content of a JSON file, measured and written unless it is there."""
    if not path.exists():
        write_json(path, measure())
    return read_json(path)


def kept_model(path: Path, model: nn.Module, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Gives a model its trained weights, for evaluation; `train` trains it in place unless their file is there.

    What training returned, then or now, and its `cpu_seconds`: they are kept beside the weights as JSON.
    """
    if not path.exists():
        began = time.process_time()
        found = train()
        write_json(path.with_suffix(".json"), {**found, "cpu_seconds": time.process_time() - began})
        with replaces_file(path) as draft:
            torch.save(model.state_dict(), draft)
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval()
    return read_json(path.with_suffix(".json"))


class Results:
    """The measured points of every seed, in one JSON file: by `"seed/name"`, with `seconds`, the CPU time of each.

    The options of the command are kept with them, but for the `varying` ones, which no point depends on.

    Raises:
        SystemExit: the file holds points of other settings.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], varying: tuple[str, ...] = ()):
        self.path = path
        self.points: dict[str, dict[str, Any]] = {}
        always = ("output_dir", "seeds")
        self.settings = {name: str(value) for name, value in options.items() if name not in (*always, *varying)}
        if path.exists():
            saved = read_json(path)
            if saved["settings"] != self.settings:
                raise SystemExit(f"error: {path} holds results of other settings. Choose another --output_dir.")
            self.points = saved["points"]

    def point(self, seed: int, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The point of that name, measured unless it is there already."""
        key = f"{seed}/{name}"
        if key not in self.points:
            began = time.process_time()
            self.points[key] = {**measure(), "seconds": round(time.process_time() - began, 1)}
            write_json(self.path, {"settings": self.settings, "points": self.points})
            short = {key: value for key, value in self.points[key].items() if not isinstance(value, (dict, list))}
            print(f"seed {seed}  {name:32} {json.dumps(short)}", flush=True)
        return self.points[key]
