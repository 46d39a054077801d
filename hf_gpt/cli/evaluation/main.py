"""`hf-gpt eval`: its options, and what it does with them."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hf_gpt.cli.command import add_loading_options, exit_status
from hf_gpt.cli.evaluation.settings import EvaluationSettings
from hf_gpt.cli.parser import CommandParser
from hf_gpt.errors import UserError, did_you_mean
from hf_gpt.option_names import renamed


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt eval",
        description="Evaluates models on tasks. Metrics have bootstrap intervals, models are compared by paired tests. "
        "Results are written as JSON, CSV, Markdown and one HTML page. A run that was stopped goes on by the same "
        "command.",
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="folders of runs or checkpoints, or Hub ids; NAME=MODEL names one"
    )
    parser.add_argument("--list", action="store_true", help="show the tasks and end")
    tasks = parser.add_argument_group("tasks")
    tasks.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="TASK",
        help="names from --list, .yaml files, or lm_eval:NAME for the LM evaluation harness, if it is installed",
    )
    tasks.add_argument("--data", type=Path, help="folder with the tasks' files, or a file that replaces the one task's")
    tasks.add_argument("--limit", type=int, help="most rows of a task, a random sample that is always the same")
    tasks.add_argument("--seeds", type=int, nargs="+", help="seeds of samples (0)")
    tasks.add_argument("--bootstrap", type=int, help="bootstrap samples behind intervals and tests (%(default)s)")
    tasks.add_argument("--samples", type=int, help="number of unconditional samples, in place of the task's")
    tasks.add_argument("--max_new_tokens", type=int, help="most tokens of a text, in place of the task's")
    curve = parser.add_argument_group("curves of quality against diversity, with --curve")
    curve.add_argument(
        "--curve",
        action="store_true",
        help="sample with every setting below, and compare models each at its own best one",
    )
    curve.add_argument("--temperatures", type=float, nargs="*", metavar="T")
    curve.add_argument("--top_ps", type=float, nargs="*", metavar="P")
    curve.add_argument("--top_ks", type=int, nargs="*", metavar="K")
    curve.add_argument("--min_ps", type=float, nargs="*", metavar="P")
    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", type=Path, help="folder of the results (%(default)s)")
    run.add_argument("--overwrite", action="store_true", help="replace the results of another evaluation there")
    run.add_argument("--discriminator", help="its score after each token colours the samples of the page")
    run.add_argument("--batch_size", type=int, help="rows in a batch (%(default)s)")
    add_loading_options(run)
    defaults = {field.name: field.default for field in fields(EvaluationSettings) if field.default is not MISSING}
    parser.set_defaults(**{name: list(each) if isinstance(each, tuple) else each for name, each in defaults.items()})
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = vars(make_parser().parse_args(argv))
    stopped = (
        f"Stopped. What each model has finished is kept in {args['output_dir']}; the same command goes on from there."
    )
    return exit_status(lambda: _evaluate(args), stopped=stopped, extra="eval")


def _evaluate(args: dict[str, Any]) -> None:
    if args.pop("list"):
        print(_listing())
        return
    settings = EvaluationSettings(**args)
    from hf_gpt.cli.evaluation.run import run_evaluation

    written = run_evaluation(settings)
    print((settings.output_dir / "results.md").read_text(encoding="utf-8"))
    print("written: " + ", ".join(str(path) for path in written))


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
    settings = EvaluationSettings(models, tasks, **options)
    from hf_gpt.cli.evaluation.run import RESULTS, run_evaluation

    run_evaluation(settings)
    return json.loads((settings.output_dir / RESULTS).read_text(encoding="utf-8"))


def _listing() -> str:
    from hf_gpt.evaluation.tasks.registry import built_in_tasks

    tasks = built_in_tasks()
    width = max(map(len, tasks))
    kinds = max(len(spec.kind) for spec in tasks.values())
    return "\n".join(f"{name:<{width}}  {spec.kind:<{kinds}}  {spec.description}" for name, spec in tasks.items())
