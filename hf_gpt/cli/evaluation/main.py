"""`hf-gpt eval`: its options, and what it does with them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import quote
from typing import Any

from hf_gpt.cli.command import command, option
from hf_gpt.cli.evaluation.settings import EvaluationSettings
from hf_gpt.cli.next_step import print_next
from hf_gpt.errors import UserError, did_you_mean
from hf_gpt.installation import shortest_path
from hf_gpt.option_names import renamed


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(EvaluationSettings):
    """The settings, and what the command does beside."""

    list: bool = option(False, "show the tasks and end")

    def __post_init__(self):
        if not self.list:
            super().__post_init__()


def _evaluate(settings: EvaluationOptions) -> None:
    if settings.list:
        print(_listing())
        return
    from hf_gpt.cli.evaluation.run import run_evaluation

    written = run_evaluation(settings)
    print((settings.output_dir / "results.md").read_text(encoding="utf-8"))
    print("written: " + ", ".join(str(path) for path in written))
    page = next(path for path in written if path.suffix == ".html")
    print_next(f"{quote(shortest_path(Path(sys.executable)))} -m webbrowser -t {quote(page.resolve().as_uri())}")


def evaluate(models: Sequence[str], tasks: Sequence[str], **options: Any) -> dict[str, Any]:
    """Evaluates models on tasks as `hf-gpt eval` does, and writes the same files.

    Args:
        models: Folders of runs or checkpoints, or Hub ids; `"NAME=MODEL"` names one.
        tasks: Names of built-in tasks, .yaml files, or `"lm_eval:NAME"`.
        options: Options of the command by their names, such as `limit=100` or `output_dir="runs/eval"`.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: a model, task or option that cannot be used.
    """
    names = [field.name for field in fields(EvaluationSettings)]
    for name in options:
        if (successor := renamed(name, names)) is not None:
            raise UserError(f"option {name!r} is now {successor!r}. Rename it.")
        if name not in names:
            raise UserError(f"there is no option {name!r}{did_you_mean(name, names)}")
    settings = EvaluationSettings(models=models, tasks=tasks, **options)
    from hf_gpt.cli.evaluation.run import RESULTS, run_evaluation

    run_evaluation(settings)
    return json.loads((settings.output_dir / RESULTS).read_text(encoding="utf-8"))


def _listing() -> str:
    from hf_gpt.evaluation.tasks.registry import built_in_tasks

    tasks = built_in_tasks()
    width = max(map(len, tasks))
    kinds = max(len(spec.kind) for spec in tasks.values())
    return "\n".join(f"{name:<{width}}  {spec.kind:<{kinds}}  {spec.description}" for name, spec in tasks.items())


make_parser, main = command(
    "hf-gpt eval",
    "Evaluates models on tasks. Metrics have bootstrap intervals, models are compared by paired tests. Results are "
    "written as JSON, CSV, Markdown and one HTML page. A run that was stopped goes on by the same command.",
    EvaluationOptions,
    _evaluate,
    examples=[
        "--list",
        "runs/book --tasks language_modelling --data held_out.txt",
        "mle=runs/book ours=runs/adversarial --tasks texts --data real.txt --seeds 0 1 2",
    ],
    common="list tasks data limit seeds samples curve output_dir overwrite discriminator",
    stopped="Stopped. What each model has finished is kept in {output_dir}; the same command goes on from there.",
    extra="eval",
)
