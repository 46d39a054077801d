"""The frame of a training command: help, settings, errors and exit status."""

import argparse
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gpt.cli.command import exit_status
from hf_gpt.cli.options import command_options, make_help_parser
from hf_gpt.errors import UserError
from hf_gpt.installation import install_hint
from hf_gpt.training.settings import (
    RECIPES,
    Settings,
    check_option_names,
    find_recipe,
    load_settings,
    read_recipe,
    split_config_option,
)


def make_command_parser(
    prog: str, description: str, dataclass_types: Sequence[type], common: Sequence[str], recipes: str, is_whole: bool
) -> argparse.ArgumentParser:
    """The parser that prints the help of a training command, without importing PyTorch.

    Args:
        prog: The command.
        description: Above the options.
        dataclass_types: With its options.
        common: Names of the options that people set most, which the short help shows.
        recipes: The built-in recipes, a line each.
        is_whole: Whether every option is shown.
    """
    groups = command_options(dataclass_types)
    count = sum(map(len, groups.values()))
    if is_whole:
        return make_help_parser(prog, description, groups)
    known = {option.name: option for options in groups.values() for option in options}
    shown = {"options that are set most": [known[name] for name in common]}
    more = f"{prog} --help all lists all {count} options; docs/options.md explains them."
    return make_help_parser(prog, description, shown, epilog=f"recipes, for --config:\n{recipes}\n\n{more}")


def recipe_lines(folder: Path, is_shown: Callable[[Mapping[str, Any]], bool] = lambda settings: True) -> str:
    """The recipes of a folder, a line each: the name, and the first sentence of the comment at the top.

    Args:
        folder: With `.yaml` files.
        is_shown: Tells from its settings whether a recipe is listed.
    """
    import yaml

    lines = []
    for path in sorted(folder.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if is_shown(yaml.safe_load(text)):
            sentence = re.split(r"(?<=[a-z)])\. ", leading_comment(text))[0].rstrip(".")
            about = textwrap.shorten(sentence, 90, placeholder=" ...")
            lines.append(f"  {path.stem:<25} {about}")
    return "\n".join(lines)


def leading_comment(recipe: str) -> str:
    """The comment at the top of a recipe's text, as one line."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), recipe.splitlines())
    return " ".join(line.lstrip("# ").strip() for line in comment)


def run_command(
    argv: Sequence[str] | None,
    *,
    make_parser: Callable[..., argparse.ArgumentParser],
    dataclass_types: Sequence[type],
    run: Callable[[Settings], int],
    trainer_type: type | None = None,
    make_training_class: Callable[[], type] | None = None,
    recipes: Path = RECIPES,
    choose_options: Callable[[Sequence[str]], Mapping[str, Any]] | None = None,
) -> int:
    """Runs a training command.

    Names of options and recipe keys are checked before the heavy imports, so a slip is answered at once.

    Args:
        argv: Command line after the command's name; None takes the process's.
        make_parser: Makes the parser that prints the help, of every option if it is called with True.
        dataclass_types: What the settings are parsed into, before the training arguments.
        run: Does the work; returns the exit status.
        trainer_type: Dataclass with the further options of the training arguments, which imports nothing heavy.
        make_training_class: Imports the training arguments; left out: `HfGptTrainingArguments`.
        recipes: Folder of the built-in recipes.
        choose_options: From a command line without recipe to options by what is trained on, which it may override.

    Returns:
        The exit status, see `exit_status`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if "-h" in argv or "--help" in argv:
        make_parser("all" in argv).print_help()
        return 0

    def work() -> int:
        shown = [*dataclass_types, *([] if trainer_type is None else [trainer_type])]
        names = [option.name for options in command_options(shown).values() for option in options]
        names.remove("config")
        recipe_name, rest = split_config_option(argv)
        check_option_names(rest, names)
        path = None if recipe_name is None else find_recipe(recipe_name, recipes)
        recipe = None if path is None else read_recipe(path, names)
        if recipe is None and choose_options is not None:
            recipe = choose_options(rest)
        status = run(_load(rest, dataclass_types, make_training_class or _training_class, recipe, path))
        _leave_process_group()
        return status

    # Another error of the system than a full disk is a fault of ours, whose traceback is wanted.
    return exit_status(work, expected=(UserError,), stopped="Stopped. No checkpoint was saved for this moment.")


def _leave_process_group() -> None:
    """Leaves the other processes of a finished run, together: gloo aborts in one that leaves while another talks."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _training_class() -> type:
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    return HfGptTrainingArguments


def _load(argv, dataclass_types, make_training_class, recipe, path) -> Settings:
    try:
        training_class = make_training_class()
    except ImportError as error:
        raise UserError(f"training needs more packages ({error}). Install them: {install_hint('train')}") from error
    return load_settings(argv, [*dataclass_types, training_class], recipe, path)
