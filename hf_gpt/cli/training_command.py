"""The frame of a training command: help, settings, errors and exit status."""

import argparse
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gpt.cli.command import Makers, exit_status
from hf_gpt.cli.options import command_options, make_help_parser
from hf_gpt.errors import UserError
from hf_gpt.files.run_lock import releases_runs
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


def training_command(
    prog: str,
    description: str,
    common: str,
    arguments: Sequence[type],
    run: Callable[[Settings], int],
    *,
    recipes: Path = RECIPES,
    is_shown: Callable[[Mapping[str, Any]], bool] = lambda recipe: True,
    prepare: Callable[[Sequence[str]], list[str]] = list,
    trainer_type: type | None = None,
    make_training_class: Callable[[], type] | None = None,
    choose_options: Callable[[Sequence[str]], Mapping[str, Any]] | None = None,
) -> Makers:
    """What makes the parser that prints a training command's help, and what runs the command.

    Names of options and recipe keys are checked before the heavy imports, so a slip is answered at once.

    Args:
        prog: The command.
        description: Above the options.
        common: Names of the options that people set most, which the short help shows.
        arguments: Dataclasses that the settings are parsed into, before the training arguments.
        run: Does the work; returns the exit status.
        recipes: Folder of the built-in recipes.
        is_shown: Tells from a recipe's settings whether the help lists it.
        prepare: What is done to the command line first.
        trainer_type: Dataclass with the further options of the training arguments, which imports nothing heavy.
        make_training_class: Imports the training arguments; left out: `HfGptTrainingArguments`.
        choose_options: From a command line without recipe to options by what is trained on, which it may override.
    """
    shown = [*arguments, *([] if trainer_type is None else [trainer_type])]

    def make_parser(is_whole: bool = True) -> argparse.ArgumentParser:
        groups = command_options(shown)
        usage = f"{prog} [--config NAME_OR_PATH] [--option value ...]"
        if is_whole:
            return make_help_parser(prog, description, groups, usage=usage)
        known = {option.name: option for options in groups.values() for option in options}
        chosen = {"options that are set most": [known[name] for name in common.split()]}
        more = f"{prog} --help all lists all {len(known)} options; docs/options.md explains them."
        epilog = f"recipes, for --config:\n{recipe_lines(recipes, is_shown)}\n\n{more}"
        return make_help_parser(prog, description, chosen, usage=usage, epilog=epilog, is_short=True)

    def main(argv: Sequence[str] | None = None) -> int:
        argv = prepare(sys.argv[1:] if argv is None else argv)
        if "-h" in argv or "--help" in argv:
            make_parser("all" in argv).print_help()
            return 0

        def work() -> int:
            settings = read_settings(
                argv, arguments, trainer_type, make_training_class, recipes=recipes, choose_options=choose_options
            )
            with releases_runs():
                status = run(settings)
            _leave_process_group()
            return status

        # Another error of the system than a full disk is a fault of ours, whose traceback is wanted.
        return exit_status(work, expected=(UserError,), stopped="Stopped. No checkpoint was saved for this moment.")

    return make_parser, main


def read_settings(
    argv: Sequence[str],
    arguments: Sequence[type],
    trainer_type: type | None = None,
    make_training_class: Callable[[], type] | None = None,
    *,
    recipes: Path = RECIPES,
    choose_options: Callable[[Sequence[str]], Mapping[str, Any]] | None = None,
) -> Settings:
    """The settings of a command line and its recipe; arguments as for `training_command`.

    Raises:
        UserError: an option or recipe that does not exist, a value that cannot be, or packages that are missing.
    """
    groups = command_options([*arguments, *([] if trainer_type is None else [trainer_type])])
    names = [option.name for options in groups.values() for option in options]
    names.remove("config")
    recipe_name, rest = split_config_option(argv)
    check_option_names(rest, names)
    path = None if recipe_name is None else find_recipe(recipe_name, recipes)
    recipe = None if path is None else read_recipe(path, names)
    if recipe is None and choose_options is not None:
        recipe = choose_options(rest)
    try:
        training_class = (make_training_class or _training_class)()
    except ImportError as error:
        raise UserError(f"training needs more packages ({error}). Install them: {install_hint('train')}") from error
    return load_settings(rest, [*arguments, training_class], recipe, path)


def _leave_process_group() -> None:
    """Leaves the other processes of a finished run, together: gloo aborts in one that leaves while another talks."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _training_class() -> type:
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    return HfGptTrainingArguments
