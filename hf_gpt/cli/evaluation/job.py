"""A task with its data, the model that is opened for it, and what its record depends on."""

import dataclasses
import sys
from typing import Any

from hf_gpt.cli.evaluation.settings import EvaluationSettings
from hf_gpt.data.code_version import package_version
from hf_gpt.evaluation.tasks.loading import Candidate, fingerprint, open_candidate
from hf_gpt.evaluation.tasks.registry import TaskSpec
from hf_gpt.evaluation.tasks.runner import Rows


@dataclasses.dataclass
class Job:
    """A task with its data, ready to be run.

    Attributes:
        name: What tables call it.
        spec: None for a task of the LM evaluation harness.
        rows: Its rows.
        data: What identifies them.
        source: What the task was asked for by.
    """

    name: str
    spec: TaskSpec | None
    rows: Rows
    data: str
    source: str


def open_model(settings: EvaluationSettings, name: str, path: str) -> Candidate:
    """A model as the options say."""
    return open_candidate(name, path, **settings.loading)


def progress(total: float, label: str) -> Any:
    """A progress bar, at a terminal only."""
    from tqdm.auto import tqdm

    form = "{l_bar}{bar}| {elapsed}<{remaining}"
    return tqdm(total=total, desc=label, disable=not sys.stderr.isatty(), leave=False, bar_format=form)


def facts_of(settings: EvaluationSettings, job: Job, path: str) -> list[Any]:
    """What the record of a model on a task depends on."""
    spec = None if job.spec is None else dataclasses.asdict(job.spec)
    if spec is not None:
        # Metrics of what has items are computed from the record each time.
        later = () if job.spec.kind == "unconditional" else ("metrics",)
        spec = {k: v for k, v in spec.items() if k not in ("name", "description", "folder", *later)}
    seeds = settings.seeds if job.spec is not None and job.spec.sampled else settings.seeds[:1]
    code = package_version("hf_gpt.evaluation", "hf_gpt.generation", "hf_gpt.models")
    # The code comes third, since what is kept of real texts depends on no more.
    return [
        spec,
        job.name if spec is None else "",
        [job.data, code],
        seeds,
        settings.dtype,
        fingerprint(path, settings.revision),
    ]
