"""`hf-gpt eval`: its options, and what it does with them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_gpt.cli.parser import CommandParser
from hf_gpt.errors import UserError, did_you_mean
from hf_gpt.terminal import INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt eval",
        description="Evaluates models on tasks: metrics with bootstrap intervals, paired tests between models, as "
        "JSON, CSV, Markdown and a page that is complete in itself. The same command goes on where it was stopped.",
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
    tasks.add_argument(
        "--data", type=Path, help="folder that the tasks' files lie in, or a file in place of the one task's own"
    )
    tasks.add_argument("--limit", type=int, help="most rows of a task: a random sample, always the same")
    tasks.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the samples (%(default)s)")
    tasks.add_argument("--bootstrap", type=int, default=1000, help="resamples behind intervals and tests (%(default)s)")
    tasks.add_argument("--samples", type=int, help="unconditional samples, in place of the task's number")
    tasks.add_argument("--max_new_tokens", type=int, help="most tokens of a text, in place of the task's number")
    curve = parser.add_argument_group("curves of quality against diversity, with --curve")
    curve.add_argument(
        "--curve", action="store_true", help="sample texts with every sampler below, each model at its own best sampler"
    )
    curve.add_argument("--temperatures", type=float, nargs="*", default=[0.5, 0.7, 0.85, 1.0, 1.2], metavar="T")
    curve.add_argument("--top_ps", type=float, nargs="*", default=[0.8, 0.9, 0.95], metavar="P")
    curve.add_argument("--top_ks", type=int, nargs="*", default=[10, 40], metavar="K")
    curve.add_argument("--min_ps", type=float, nargs="*", default=[0.05, 0.1], metavar="P")
    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", type=Path, default=Path("runs/eval"), help="folder of the results (%(default)s)")
    run.add_argument("--overwrite", action="store_true", help="replace the results of another evaluation there")
    run.add_argument(
        "--discriminator", help="a discriminator whose score after each token colours the samples of the page"
    )
    run.add_argument("--batch_size", type=int, default=16, help="rows at a time (%(default)s)")
    run.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    run.add_argument("--device", help="cpu, cuda, ...; left out: an accelerator if there is one")
    run.add_argument("--revision", default="main", help="branch, tag or commit of Hub ids")
    run.add_argument("--trust_remote_code", action="store_true", help="run model code that comes with a checkpoint")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    try:
        if args.list:
            print(_listing())
            return 0
        _check(args)
        from hf_gpt.cli.evaluation.run import run_evaluation

        written = run_evaluation(args)
        print((args.output_dir / "results.md").read_text(encoding="utf-8"))
        print("written: " + ", ".join(str(path) for path in written))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error}. Results that are there are whole.", file=sys.stderr)
    except ImportError as error:
        print(f"error: evaluation needs more packages ({error}): pip install 'hf-gpt[eval]'", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            f"Stopped. What each model has finished is kept in {args.output_dir}; the same command goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED
    return 2


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
    args = make_parser().parse_args([])
    unknown = sorted(options.keys() - vars(args).keys())
    if unknown:
        raise UserError(f"there is no option {unknown[0]!r}{did_you_mean(unknown[0], list(vars(args)))}")
    vars(args).update(options, models=list(models), tasks=list(tasks))
    args.output_dir = Path(args.output_dir)
    args.data = None if args.data is None else Path(args.data)
    _check(args)
    from hf_gpt.cli.evaluation.run import RESULTS, run_evaluation

    run_evaluation(args)
    return json.loads((args.output_dir / RESULTS).read_text(encoding="utf-8"))


def _listing() -> str:
    from hf_gpt.evaluation.tasks.registry import built_in_tasks

    tasks = built_in_tasks()
    width = max(map(len, tasks))
    kinds = max(len(spec.kind) for spec in tasks.values())
    return "\n".join(f"{name:<{width}}  {spec.kind:<{kinds}}  {spec.description}" for name, spec in tasks.items())


def _check(args: argparse.Namespace) -> None:
    """Refuses what cannot be right before anything heavy is imported."""
    if not args.models:
        raise UserError(
            "no model. Give the folder of a run or checkpoint, or a Hub id: hf-gpt eval runs/demo/model ..."
        )
    if not args.tasks:
        raise UserError("no task. Name some with --tasks; --list shows them.")
    for name, least in (("limit", 1), ("bootstrap", 0), ("batch_size", 1), ("samples", 20), ("max_new_tokens", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}, got {value}.")
    if args.curve and args.samples is not None and args.samples < 40:
        raise UserError(f"--samples must be at least 40 with --curve, which halves them, got {args.samples}.")
    if len(set(args.seeds)) != len(args.seeds) or min(args.seeds) < 0:
        raise UserError(f"--seeds must be different numbers from 0 on, got {' '.join(map(str, args.seeds))}.")
    if args.data is not None and args.data.is_file() and len(args.tasks) > 1:
        raise UserError(f"--data {args.data} is a file: evaluate one task on it, or name the folder that all lie in.")


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
