"""The reference of every option of the training commands and of every recipe, as Markdown.

python -m hf_gpt.cli.option_reference > docs/options.md
"""

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from hf_gpt.adversarial.arguments import AdversarialArguments
from hf_gpt.cli import adversarial as adversarial_train
from hf_gpt.cli import finetune, pretrain
from hf_gpt.cli.options import Option, options_of, training_options
from hf_gpt.cli.training_command import leading_comment
from hf_gpt.training.settings import ADVERSARIAL_RECIPES, RECIPES


ROOT = Path(__file__).parents[2]
# Keys of a recipe that say where it writes, not what it is.
_OUTPUTS = ("output_dir",)
_WHOLE = {"break_long_words": False, "break_on_hyphens": False}


def reference() -> str:
    """The whole page."""
    commands = {
        "pretrain": pretrain.ARGUMENTS,
        "finetune": finetune.ARGUMENTS,
        "adversarial": (*adversarial_train.ARGUMENTS, AdversarialArguments),
    }
    users: dict[type, list[str]] = {}
    for command, kinds in commands.items():
        for kind in kinds:
            users.setdefault(kind, []).append(command)
    parts = [
        "# Options and recipes",
        "Made by `python -m hf_gpt.cli.option_reference > docs/options.md` from the dataclasses that the commands "
        "parse. An option is `--name value` on the command line and `name: value` in a recipe; a recipe's value "
        "replaces the default, the command line replaces both. Every field of `transformers.TrainingArguments` is an "
        "option too.",
        "## Recipes",
        "`--config NAME` takes one of these, `--config PATH` a file of your own. What it sets is in the file.",
        _recipe_table({"": RECIPES, "adversarial": ADVERSARIAL_RECIPES}),
        "## Options",
    ]
    for kind, names in users.items():
        used = ", ".join(f"`hf-gpt {name}`" for name in names)
        title = kind._argument_group_name
        parts += [f"### {title[0].upper()}{title[1:]}", f"For {used}.", _option_table(options_of(kind))]
    parts += [
        "### Training",
        "For all of them, beside the fields of `transformers.TrainingArguments`. `hf-gpt adversarial` has other "
        "defaults for those that it lists above.",
        _option_table(training_options()[0]),
    ]
    # Prose alone: a row of a table is one line.
    return "\n\n".join(part if part.startswith("|") else textwrap.fill(part, 118, **_WHOLE) for part in parts) + "\n"


def _option_table(options: Iterable[Option]) -> str:
    rows = ["| option | type | default | what it does |", "|---|---|---|---|"]
    for option in options:
        cells = (f"`{option.name}`", _cell(option.type), _cell(option.default), _cell(option.help))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _recipe_table(folders: Mapping[str, Path]) -> str:
    rows = ["| recipe | command | about it | keys |", "|---|---|---|---|"]
    for kind, folder in folders.items():
        for path in sorted(folder.glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            settings = yaml.safe_load(text)
            command = kind or ("finetune" if "task" in settings else "pretrain")
            link = f"[{path.stem}](../{path.relative_to(ROOT).as_posix()})"
            keys = len([key for key in settings if key not in _OUTPUTS])
            rows.append(f"| {link} | `{command}` | {_cell(leading_comment(text))} | {keys} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(lambda: print(reference(), end=""), prints_result=True))
