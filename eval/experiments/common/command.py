"""The command line of an experiment: the options that all have, and how each begins."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def make_parser(description: str | None, folder: str, seeds: str | None = "a run for each") -> argparse.ArgumentParser:
    """A parser with `--output_dir`, a folder below `runs/`, and `--seeds` unless they are None."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs", folder), help="folder of the results")
    if seeds is not None:
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help=seeds)
    return parser


def start(main: Callable[[], int]) -> NoReturn:
    """Runs the program and ends with its status."""
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
