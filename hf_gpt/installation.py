"""How a user calls this installation, and how packages are added to it."""

import os
import shutil
import sys
from pathlib import Path
from shlex import quote


_PROGRAM = "hf-gpt"


def as_typed(command: str) -> str:
    """A command of `hf-gpt` as it can be typed here: with the program's path where its name alone is not found."""
    program = Path(sys.executable).parent / _PROGRAM
    if shutil.which(_PROGRAM) is not None or not program.is_file():
        return command
    return quote(shortest_path(program)) + command.removeprefix(_PROGRAM)


def install_hint(extra: str) -> str:
    """The command that installs an extra: from the checkout, if this is one, or from the package index."""
    root = Path(__file__).parents[1]
    if not (root / "pyproject.toml").is_file():
        return f"pip install '{_PROGRAM}[{extra}]'"
    return f"{quote(shortest_path(Path(sys.executable)))} -m pip install -e {quote(f'{shortest_path(root)}[{extra}]')}"


def shortest_path(path: Path) -> str:
    """The path from the present folder if that is shorter. Links stay: a virtual environment's Python is one."""
    absolute, relative = str(path), os.path.relpath(path)
    return relative if len(relative) < len(absolute) else absolute
