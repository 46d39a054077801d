"""The text that experiments of the evaluation read: lines of files below one folder."""

import gzip
import os
import re
from pathlib import Path


# Words and marks apart: some texts end with a full stop and some do not.
WORD = re.compile(r"[a-z0-9']+|[^a-z0-9'\s]")


def data_folder() -> Path:
    """The folder of the data sets: `HF_GPT_DATA`, or `../shared/data` beside the repository."""
    return Path(os.environ.get("HF_GPT_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))


def read_text(path: str) -> str:
    """A text file in the data folder, `.gz` too.

    Raises:
        FileNotFoundError: the file is not there.
    """
    file = data_folder() / path
    if not file.exists():
        raise FileNotFoundError(f"{path} is not in {data_folder()}. Set HF_GPT_DATA to the folder of the data sets.")
    content = file.read_bytes()
    return (gzip.decompress(content) if file.suffix == ".gz" else content).decode("utf-8")


def read_lines(path: str) -> list[str]:
    """Lines of a text file in the data folder without blanks at their ends; empty lines are left out."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def read_words(path: str) -> list[list[str]]:
    """The lines of `read_lines` as words and marks in lower case."""
    return [WORD.findall(line.lower()) for line in read_lines(path)]
