"""`hf-gpt completion`: a script by which a shell completes commands, options and their values."""

import argparse
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hf_gpt.cli.command import REQUIRED, command, option
from hf_gpt.training.distributed.launch import built_in_profiles
from hf_gpt.training.settings import ADVERSARIAL_RECIPES, RECIPES, built_in_recipes


# What the value of an option is, by the end of its name.
_FOLDERS = ("_dir", "destination", "folder")
_FILES = ("_file", "data", "results", "output", "file", "source", "models", "model", "model_name_or_path")


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """The options of the command."""

    shell: Literal["bash", "zsh", "fish", "tcsh"] = option(REQUIRED, "shell that the script is for", positional=True)


def parser_of_all(modules: Mapping[str, Any]) -> argparse.ArgumentParser:
    """A parser of `hf-gpt` with every command under it, which knows what values options take.

    Args:
        modules: `hf_gpt.cli.main.COMMANDS`.
    """
    parser = argparse.ArgumentParser(prog="hf-gpt", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command")
    for name, entry in modules.items():
        own = importlib.import_module(entry.module).make_parser()
        child = commands.add_parser(name, help=entry.summary, parents=[own], add_help=False, conflict_handler="resolve")
        options = child._option_string_actions
        if "--config" in options:
            options["--config"].choices = _recipes(name)
            child.add_argument("--accelerate", choices=built_in_profiles(), help="several processes, by this profile")
            child.add_argument("--num_processes", help="how many processes")
        for action in child._actions:
            _complete_paths(action)
    return parser


def _recipes(name: str) -> list[str]:
    """The built-in recipes of a command; those of a task name it."""
    if name == "adversarial":
        return built_in_recipes(ADVERSARIAL_RECIPES)
    texts = {recipe: (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8") for recipe in built_in_recipes()}
    return [recipe for recipe, text in texts.items() if ("\ntask:" in text) == (name == "finetune")]


def _complete_paths(action: argparse.Action) -> None:
    import shtab

    if action.choices is None and action.nargs != 0:
        if action.dest.endswith(_FOLDERS):
            action.complete = shtab.DIRECTORY
        elif action.dest.endswith(_FILES) or action.dest == "discriminator":
            action.complete = shtab.FILE


def _print_script(args: CompletionOptions) -> None:
    import shtab

    from hf_gpt.cli.main import COMMANDS

    print(shtab.complete(parser_of_all(COMMANDS), shell=args.shell))


make_parser, main = command(
    "hf-gpt completion",
    "Prints the script by which a shell completes commands, options and their values. The shell reads it once, so that "
    "no Python is started at a key.",
    CompletionOptions,
    _print_script,
    examples=["bash > ~/.local/share/bash-completion/completions/hf-gpt", 'zsh > "${fpath[1]}/_hf-gpt"'],
)
