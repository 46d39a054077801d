"""`python -m tests.pythons`: compiles every file by each supported Python that this machine has; names the others."""

import shutil
import subprocess
import sys
from pathlib import Path


SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
ROOT = Path(__file__).parents[1]
COMPILE = """
import sys, warnings
warnings.simplefilter("error", SyntaxWarning)
for name in sys.stdin.read().split("\\0"):
    with open(name, encoding="utf-8") as file:
        compile(file.read(), name, "exec")
import importlib.util
sys.path.insert(0, ".")
# What needs no packages is run, too.
import hf_gpt.cli.main, hf_gpt.option_ranges, hf_gpt.cli.parser, hf_gpt.version
assert hf_gpt.cli.main.main(["--help"]) == 0
"""


def find_python(version: str) -> str | None:
    """An interpreter of that version: on the path, or one that pyenv has."""
    if (found := shutil.which(f"python{version}")) and _runs(found, version):
        return found
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    return next((str(path) for path in kept if _runs(str(path), version)), None)


def _runs(python: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip() == version


def main() -> int:
    """Prints a line for each version; 1 if one of them fails."""
    names = [str(path) for top in ("hf_gpt", "training", "eval") for path in sorted((ROOT / top).rglob("*.py"))]
    failed = False
    for version in SUPPORTED:
        python = find_python(version)
        if python is None:
            print(f"{version}: skipped, this machine has no such Python")
            continue
        done = subprocess.run([python, "-c", COMPILE], input="\0".join(names), capture_output=True, text=True, cwd=ROOT)
        failed |= done.returncode != 0
        print(f"{version}: {'passed' if done.returncode == 0 else 'failed'}, {len(names)} files, {python}")
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
