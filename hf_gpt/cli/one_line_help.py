"""Short help: one line for each option, its name and the first sentence about it."""

import argparse
import re
import textwrap


_WIDTH, _COLUMN = 116, 40
# Texts of the library that begin with something else than what the option is.
_SAID_SHORTER = {
    "max_steps": "Steps in all, in place of num_train_epochs",
    "num_train_epochs": "Passes over the data",
}


class OneLineHelp(argparse.RawDescriptionHelpFormatter):
    """Formats an option and its help in one line; the whole help of a command has the rest."""

    def __init__(self, prog: str, **settings):
        super().__init__(prog, **{**settings, "max_help_position": _COLUMN, "width": _WIDTH})

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if not action.option_strings:
            return super()._format_args(action, default_metavar)
        kind = action.metavar if isinstance(action.metavar, str) else getattr(action.type, "__name__", "text").upper()
        return {"str": "TEXT", "STR": "TEXT"}.get(kind, kind if kind.isidentifier() else "NAME")

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        default = re.search(r" (\((?:default: )?[^()]*\))$", text)
        sentence = _SAID_SHORTER.get(action.dest) or re.split(r"(?<=[a-z)`])(?<!e\.g)\. ", text)[0].removesuffix(".")
        if default is None or default[0] in sentence or default[1].endswith(" -1)"):
            return textwrap.shorten(sentence, _WIDTH - _COLUMN, placeholder=" ...")
        room = _WIDTH - _COLUMN - len(default[0])
        return textwrap.shorten(sentence, room, placeholder=" ...") + default[0]
