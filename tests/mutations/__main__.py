"""`python -m tests.mutations`: puts known faults into a copy of the source, one at a time, and expects a red test.

A test suite is judged by what it sees. Each mutation of `catalogue.yaml` is a fault that a reader may overlook. The
tests named beside it are part of `make test`, and one of them has to fail.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tests.mutations.catalogue import ROOT, Mutation, read_catalogue


SECONDS = 600
# What pytest returns where tests have failed; anything else but 0 means that it did not get to run them.
FAILED = 1


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if the tests pass without a mutation and see each one, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only mutations whose name contains one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutations tried at a time")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args(arguments)
    mutations = [m for m in read_catalogue() if not options.names or any(name in m.name for name in options.names)]
    if not mutations:
        parser.error(f"no mutation is named like {', '.join(options.names)}: see --list")
    if options.list:
        print("\n".join(mutation.name for mutation in mutations))
        return 0
    with tempfile.TemporaryDirectory(prefix="hf-gpt-mutations-") as folder:
        copies: Queue[Path] = Queue()
        for number in range(max(1, options.jobs)):
            copies.put(copy_source(Path(folder) / str(number)))
        first = copies.queue[0]
        tests = sorted({name for mutation in mutations for name in mutation.tests if not name.startswith("-")})
        print(f"{len(mutations)} mutations; first the tests without any ...", flush=True)
        code, output = run_tests(first, tests, ("-n", str(options.jobs)))
        if code:
            print(output)
            print("The tests do not pass without a mutation, so they would say nothing about one.")
            return 1
        return try_all(mutations, copies, options.jobs)


def try_all(mutations: list[Mutation], copies: "Queue[Path]", jobs: int) -> int:
    """Tries every mutation in a free copy of the source, prints a line for each and returns the exit status."""

    def attempt(mutation: Mutation) -> tuple[Mutation, str, float]:
        copy = copies.get()
        try:
            return mutation, *verdict(mutation, copy)
        finally:
            copies.put(copy)

    found: dict[str, list[str]] = {}
    start = time.monotonic()
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for number, (mutation, result, seconds) in enumerate(pool.map(attempt, mutations), 1):
            found.setdefault(result, []).append(mutation.name)
            print(f"{number:3d}/{len(mutations)}  {result:<9} {seconds:5.1f} s  {mutation.name}", flush=True)
    seen = len(found.get("seen", []))
    print(f"{seen} of {len(mutations)} mutations were seen, in {time.monotonic() - start:.0f} s.")
    for result, names in found.items():
        if result != "seen":
            print(f"{result}: {'; '.join(names)}")
    return 0 if seen == len(mutations) else 1


def verdict(mutation: Mutation, copy: Path) -> tuple[str, float]:
    """What the tests said of a mutated copy, "seen", "survived" or "broken", and the seconds they took."""
    start = time.monotonic()
    former = mutation.apply(copy)
    try:
        code, _ = run_tests(copy, list(mutation.tests), ("-x", "-p", "no:xdist"))
    finally:
        (copy / mutation.file).write_text(former, encoding="utf-8")
    return {0: "survived", FAILED: "seen"}.get(code, "broken"), time.monotonic() - start


def run_tests(copy: Path, tests: list[str], options: tuple[str, ...]) -> tuple[int, str]:
    """Runs pytest in a copy of the source; returns its exit status and the end of its output."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(copy),
        # A mutated file of the same length and second would otherwise be taken from the cache of compiled files.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        # A fault that never ends is a fault that is seen.
        return FAILED, f"no end after {SECONDS} s"
    return done.returncode, "\n".join((done.stdout + done.stderr).splitlines()[-40:])


def copy_source(target: Path) -> Path:
    """Copies all files that belong to the repository, and checks that Python imports those of the copy.

    Raises:
        RuntimeError: it imports others.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    asked = "import hf_gpt; print(hf_gpt.__path__[0])"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run([sys.executable, "-c", asked], cwd=target, env=environment, capture_output=True, text=True)
    if not all(part.startswith(str(target)) for part in (done.stdout.split() or [""])):
        raise RuntimeError(f"Python does not import the copy in {target}: {done.stdout}{done.stderr}")
    return target


if __name__ == "__main__":
    sys.exit(main())
