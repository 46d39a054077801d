"""Runs of `hf-gpt` commands in processes of their own, and what they reached."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from eval.experiments.common.results import read_json
from hf_gpt.files.atomic_files import write_json
from hf_gpt.training.monitoring.mfu import prefers_bfloat16


def run(command: str, settings: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Runs a command of hf-gpt, in the type that is quicker here, unless its folder holds a result.

    What it took is written to `cost.json` in that folder.
    """
    if (folder / "cost.json").exists():
        return
    settings = {"bf16": prefers_bfloat16("cpu"), **settings, "seed": seed, "output_dir": folder}
    words = [word for name, value in settings.items() for word in (f"--{name}", *_words(value))]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    print(f"{folder.name}: running, see {log}", flush=True)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run([sys.executable, "-m", "hf_gpt", command, *words], stdout=file, stderr=file).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        raise SystemExit(f"{folder.name} failed:\n{log.read_text(encoding='utf-8')[-2000:]}")
    cost = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
    }
    write_json(folder / "cost.json", cost)


def finished(output: Path, pattern: str) -> list[Path]:
    """Folders of runs that are done, by a pattern of their names, which end with the seed."""
    return sorted(path.parent for path in output.glob(f"{pattern}/cost.json"))


def seed_of(folder: Path) -> str:
    """The seed at the end of a run's name."""
    return folder.name.rpartition("-")[2]


def core_minutes(folder: Path) -> float:
    """What a run took, in minutes of one core."""
    return read_json(folder / "cost.json")["cpu_seconds"] / 60


def scored(scores: Sequence[float], minutes: Sequence[float], form: str) -> dict[str, Any]:
    """Cells of a table for the scores of seeds."""
    return {
        "mean": format(fmean(scores), form),
        "least to most": f"{min(scores):{form}} to {max(scores):{form}}",
        "seeds": len(scores),
        "core minutes": f"{fmean(minutes):.1f}",
    }


def _words(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return [json.dumps(value) if isinstance(value, (dict, bool)) else str(value)]
