"""What to do with what a command has made: one more command, which works as it is printed."""

import json
import sys
from pathlib import Path
from shlex import quote

from hf_gpt.installation import as_typed, shortest_path
from hf_gpt.training.run import print_lines


_PIPELINES = {"ForSequenceClassification": "text-classification", "ForTokenClassification": "token-classification"}


def use_of_model(folder: str | Path, prompt: str = "Once upon a time") -> str | None:
    """The command that tries a checkpoint; None where no command opens its kind.

    Args:
        folder: With the checkpoint; a folder of a run has it in `model`.
        prompt: What a model continues.
    """
    path = Path(folder) / "model" if (Path(folder) / "model" / "config.json").is_file() else Path(folder)
    try:
        kind = (json.loads((path / "config.json").read_text(encoding="utf-8"))["architectures"] or [""])[0]
    except (OSError, ValueError, KeyError):
        return None
    if not (path / "tokenizer_config.json").is_file():
        return None
    if kind.endswith(("ForCausalLM", "LMHeadModel")):
        is_chat = (path / "chat_template.jinja").is_file()
        return as_typed(f"hf-gpt chat {quote(str(folder))}" if is_chat else _generate(folder, prompt))
    for ending, task in _PIPELINES.items():
        if kind.endswith(ending):
            code = "import hf_gpt; from transformers import pipeline"
            code += f"; print(pipeline({', '.join(map(json.dumps, (task, str(path))))})({json.dumps(prompt)}))"
            return f"{quote(shortest_path(Path(sys.executable)))} -c {quote(code)}"
    return None


def print_next(following: str | None) -> None:
    """Prints the command that comes next, if there is one."""
    if following is not None:
        print_lines(print, [("next", following)])


def _generate(folder: str | Path, prompt: str) -> str:
    return f"hf-gpt generate {quote(str(folder))} {quote(prompt)}"
