"""The parser of commands: what it cannot use it says in one line, with what is nearest."""

import argparse
import re
import sys
from typing import NoReturn

from hf_gpt.errors import did_you_mean
from hf_gpt.files.output_paths import wrong_output
from hf_gpt.option_names import former_name_in
from hf_gpt.option_ranges import NEGATIVE_NUMBER, wrong_number


class RefusedValue(SystemExit):
    """An option has a value of the right type that cannot be used; what is wrong is printed, and the status is 2."""


class CommandParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` without abbreviations, whose errors are one line that names the nearest option."""

    def __init__(self, **settings):
        super().__init__(**{"allow_abbrev": False, **settings})
        self._negative_number_matcher = NEGATIVE_NUMBER

    def parse_known_args(self, args=None, namespace=None):
        """As in the base class; also refuses former names, numbers out of range and outputs that cannot be written."""
        args = list(sys.argv[1:] if args is None else args)
        options = [name.removeprefix("--") for name in self._option_string_actions]
        refuse(former_name_in(args, options))
        namespace, rest = super().parse_known_args(args, namespace)
        refuse(wrong_number(vars(namespace)) or wrong_output(vars(namespace)))
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        """Prints the line on standard error and ends the process with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"error: {line}{self._hint(line)} {self.prog} --help lists all.\n")

    def _hint(self, line: str) -> str:
        if unknown := re.match(r"unrecognized arguments: (--[\w-]+)", line):
            return did_you_mean(unknown[1], list(self._option_string_actions))
        if wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", line):
            return did_you_mean(wrong[1], [name.strip(" '") for name in wrong[2].split(",")])
        return "."


def refuse(wrong: str | None) -> None:
    """Prints the sentence about what is wrong, if there is one, and ends the command."""
    if wrong is not None:
        print(f"error: {wrong}", file=sys.stderr)
        raise RefusedValue(2)
