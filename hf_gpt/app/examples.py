"""Prompts to start with: questions for a chat model, else first words, of the model's own corpus if it is known."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from hf_gpt.cli.score import read_texts
from hf_gpt.data.corpus import resolve_file
from hf_gpt.data.row_files import table_format


QUESTIONS = ("What is a rainbow?", "Why do we sleep?", "Write two lines about the sea.", "Name three kinds of trees.")
STARTS = ("Once upon a time", "In the morning", "The old man opened the door and", "It is said that")
# Options of the training commands that name texts.
_CORPUS = ("corpus", "train_file")
# How much of a corpus is read, in bytes and in rows.
_MOST_BYTES, _MOST_ROWS = 100_000, 200
_MOST_WORDS, _MOST_LETTERS = 5, 40


def example_prompts(folder: str, is_chat: bool, number: int = 4) -> list[str]:
    """Some prompts that fit a model.

    Args:
        folder: Where the model was loaded from, or a Hub id.
        is_chat: Whether it answers questions.
        number: How many at most.
    """
    if is_chat:
        return list(QUESTIONS[:number])
    return first_words(_texts(_recipe(Path(folder))), number) or list(STARTS[:number])


def first_words(texts: Iterable[str], number: int) -> list[str]:
    """The first words of some paragraphs, spread over the texts, all different."""
    found: dict[str, None] = {}
    for text in texts:
        lines = [part.strip().splitlines()[0] for part in text.split("\n\n") if part.strip()]
        if len(lines) < number:
            lines = [line for line in text.splitlines() if line.strip()]
        for line in lines:
            start = " ".join(line.split()[:_MOST_WORDS])
            # A mark at the end of a whole line, as of who speaks, belongs to it.
            if 3 <= len(start) <= _MOST_LETTERS:
                found.setdefault(start)
    chosen = list(found)
    step = max(1, len(chosen) // number)
    return chosen[::step][:number]


def _recipe(folder: Path) -> dict[str, Any]:
    """The settings of the run that a model's folder is part of; empty where none are recorded."""
    for file in (folder / "recipe.yaml", folder.parent / "recipe.yaml"):
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _texts(recipe: dict[str, Any]) -> list[str]:
    """The first texts of the corpus of a run; none where it is not there any more or cannot be read."""
    named = next((recipe[name] for name in _CORPUS if recipe.get(name)), [])
    sources = named if isinstance(named, list) else [named]
    column = str(recipe.get("prompt_column") or recipe.get("text_column") or "text")
    for source in sources:
        try:
            path = resolve_file(str(source))
            if table_format(path) is not None:
                texts = list(itertools.islice(read_texts(str(path), column), _MOST_ROWS))
            else:
                with path.open("rb") as file:
                    texts = [file.read(_MOST_BYTES).decode("utf-8", "ignore").replace("\r\n", "\n")]
        except (OSError, ValueError):
            continue
        if texts:
            return texts
    return []
