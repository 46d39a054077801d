"""Runs the conformance tests and reports how our classes compare with the reference."""

import argparse
import os
import sys
import time
from pathlib import Path

import pytest

from conformance import source
from conformance.report import Recorder, render
from conformance.specs import BY_NAME, REFERENCES


TESTS = Path(__file__).resolve().parent / "test_models.py"


def parse_arguments(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Our own options, and whatever else goes on to pytest."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Runs the tests of the installed Transformers over our model classes. "
        "Options that are not listed here go to pytest, e.g. -k test_training -x.",
        epilog="The archive lacks the generation and export tests among others. To run them, put a full checkout's "
        "files, laid out as in its folder `tests`, into a folder of your own and name it in HF_GPT_CONFORMANCE_EXTRA.",
    )
    parser.add_argument("--spec", action="append", choices=sorted(BY_NAME), help="only this one (repeatable)")
    parser.add_argument("--workers", default="2", help="parallel test processes (default: %(default)s)")
    parser.add_argument("--no-reference", action="store_true", help="do not run or compare with the reference")
    parser.add_argument("--seed", default="0", help="of weights and inputs (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="run the deselected tests too")
    parser.add_argument("--fetch", action="store_true", help="only fetch the archive")
    return parser.parse_known_args(arguments)


def set_environment(options: argparse.Namespace) -> None:
    """Tells the test workers and their ranks, which inherit nothing but the environment, what to run."""
    specs = list(options.spec or BY_NAME)
    needed = {BY_NAME[name].reference_name for name in specs}
    specs = [name for name in specs if name not in REFERENCES]
    if not options.no_reference:
        specs = [*(name for name in REFERENCES if name in needed), *specs]
    tests_root = str(TESTS.parents[1])
    os.environ |= {
        "HF_GPT_CONFORMANCE": "1",
        "HF_GPT_CONFORMANCE_SPECS": ",".join(specs),
        "HF_GPT_CONFORMANCE_SEED": options.seed,
        "HF_GPT_CONFORMANCE_ALL": "1" if options.all else "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (tests_root, os.environ.get("PYTHONPATH")))),
        "TOKENIZERS_PARALLELISM": "false",
    }


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if our classes pass every test that the reference passes, or that is listed with a reason."""
    options, pytest_arguments = parse_arguments(arguments)
    try:
        folder = source.fetch()
    except source.SourceUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    if options.fetch:
        print(folder)
        return 0

    set_environment(options)
    parallel = ["-n", options.workers, "--dist", "worksteal"] if options.workers != "0" else []
    recorder = Recorder()
    began = time.monotonic()
    # `-m` lets the library's slow tests show up as skipped, rather than vanish by this project's own setting.
    settings = ["--no-header", "--tb=short", "-rfE", "-m", "", "-pno:cacheprovider", "-pno:warnings"]
    code = pytest.main([str(TESTS), *settings, *parallel, *pytest_arguments], plugins=[recorder])
    narrowed = bool(pytest_arguments) or bool(options.spec)
    text, problems = render(recorder.results, narrowed=narrowed)
    print(text)
    print(f"\n{time.monotonic() - began:.0f} s, transformers {source.installed_version()}")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return int(code)
    return 1 if problems else 0
