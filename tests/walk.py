"""`python -m tests.walk [PAGE ...]`: types a page of docs into a shell, top to bottom, in a fresh clone.

Every command and every Python example runs in order, in one shell. Each is printed with the seconds that it took. What
a page takes for granted, a text of the reader's own, is put there first. The first command that fails ends the walk.
"""

import argparse
import json
import re
import shlex
import subprocess
import tempfile
import time
from pathlib import Path


ROOT = Path(__file__).parents[1]
COMMANDS = ("hf-gpt ", "make ", "mkdir ", "python", "pip ", "source ", ".venv/bin/")
# The suite is what `.ci/run` runs.
LEFT_OUT = ("make test",)
# What readers have of their own: a long text, short ones, held-out ones, and a teacher's answers.
TEXTS = ("book.txt", "real.txt", "held_out.txt", "texts.txt")
ANSWERS = "answers.jsonl"


def commands_of(page: Path) -> list[str]:
    """What a reader types: shell lines with their continuations, and Python examples as one command each."""
    found = []
    for language, code in re.findall(r"```(\w*)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        if language == "python":
            found.append(f"python - <<'EOF'\n{code}EOF")
        elif not language:
            lines = code.replace("\\\n", " ").splitlines()
            found += [line.strip() for line in lines if line.strip().startswith(COMMANDS)]
    return [command for command in found if not command.startswith(LEFT_OUT)]


def give_texts(folder: Path) -> None:
    """Writes what a page takes for granted."""
    corpus = (ROOT / "hf_gpt" / "data" / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    for number, name in enumerate(TEXTS):
        (folder / name).write_text(corpus[number * 200_000 : (number + 1) * 200_000], encoding="utf-8")
    (folder / "prompts.txt").write_text("\n".join(f"Speak, {n}:" for n in range(300)), encoding="utf-8")
    rows = [{"prompt": f"{n} plus {n % 7} is", "completion": f" {n + n % 7}."} for n in range(300)]
    (folder / ANSWERS).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def walk(pages: list[Path], folder: Path) -> int:
    """Runs the commands of the pages in a folder; prints what each took, and returns the exit status."""
    script = ["set -eo pipefail"]
    for page in pages:
        for command in commands_of(page):
            title = command.split("\n")[0]
            script += [f"echo {shlex.quote(f'$ {title}')}", "began=$SECONDS", command]
            script.append('echo "  $((SECONDS - began)) s"')
    began = time.monotonic()
    status = subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, check=False).returncode
    verdict = "every command worked" if status == 0 else f"the last command failed with status {status}"
    print(f"{verdict}, {time.monotonic() - began:.0f} s in all")
    return status


def main() -> int:
    """Clones the repository and walks the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", default=["README.md"], help="paths within the repository")
    parser.add_argument("--folder", type=Path, help="where to clone to; left out: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        give_texts(folder)
        return walk([ROOT / page for page in options.pages], folder)


if __name__ == "__main__":
    raise SystemExit(main())
