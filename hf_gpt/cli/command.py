"""What all commands do alike: options as fields of a dataclass, help, errors in one line, exit status, Ctrl-C."""

import argparse
import dataclasses
import errno
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hf_gpt.cli.one_line_help import OneLineHelp
from hf_gpt.cli.parser import CommandParser
from hf_gpt.errors import UserError
from hf_gpt.installation import install_hint
from hf_gpt.option_values import option
from hf_gpt.terminal import INTERRUPTED


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
REQUIRED = dataclasses.MISSING
Makers = tuple[Callable[..., argparse.ArgumentParser], Callable[..., int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where a model is, and whether code that comes with it may run."""

    _argument_group_name = "model"
    device: str | None = option(None, "cpu, cuda, ...; left out: an accelerator if there is one")
    trust_remote_code: bool = option(False, "run model code that comes with a checkpoint")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RevisionOptions(DeviceOptions):
    """Which version of a checkpoint is loaded."""

    _argument_group_name = "model"
    revision: str = option("main", "branch, tag or commit of a Hub id")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadingOptions(RevisionOptions):
    """How a model is loaded."""

    _argument_group_name = "model"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "of its weights")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How texts are read from files."""

    _argument_group_name = "text"
    text_column: str = option("text", "column of a table that holds the text")
    document_separator: str | None = option(
        None, r"what parts a text file into texts, e.g. '\n'; left out: one file is one text"
    )


def command(
    prog: str,
    description: str,
    options: type,
    work: Callable[[Any], int | None],
    *,
    examples: Iterable[str],
    common: str = "",
    check: Callable[[Any], str | None] | None = None,
    expected: tuple[type[Exception], ...] = (UserError, OSError),
    stopped: str = "Stopped.",
    paths: Sequence[str] = (),
    extra: str | None = None,
) -> Makers:
    """What makes a command's parser, and what runs it.

    Args:
        prog: The command.
        description: What it does.
        options: Dataclass with its options, of fields made by `option`; the default is added to their help. A field of
            default `REQUIRED` must be given, one of `positional=True` stands by position, `aliases` have dashes.
        work: Does it, given an instance of the dataclass.
        examples: Command lines after `prog`, for the help.
        common: Options that the short help shows; left out: all.
        check: Says what is wrong with options together.
        expected: As for `exit_status`, like the next and the last.
        stopped: May name options in braces.
        paths: Names of the options that a model was asked for by.
        extra: Extra of hf-gpt with packages that may be missing.
    """

    def make_parser(is_whole: bool = True) -> argparse.ArgumentParser:
        parser = CommandParser(
            prog=prog,
            formatter_class=argparse.RawDescriptionHelpFormatter if is_whole else OneLineHelp,
            description=textwrap.fill(description, 100),
        )
        add_options(parser, options, None if is_whole or not common else set(common.split()))
        parser.usage = _usage(parser)
        shown = [f"examples:\n{textwrap.indent(chr(10).join(f'{prog} {line}' for line in examples), '  ')}"]
        count = len(dataclasses.fields(options))
        shown += [] if is_whole else [f"{prog} --help all explains all {count} options."]
        parser.epilog = "\n\n".join(shown)
        return parser

    def main(argv: Sequence[str] | None = None) -> int:
        argv = list(sys.argv[1:] if argv is None else argv)
        if "-h" in argv or "--help" in argv:
            make_parser("all" in argv).print_help()
            return 0
        parser = make_parser()
        values = vars(parser.parse_args(argv))
        if check is not None and (wrong := check(argparse.Namespace(**values))) is not None:
            parser.error(wrong)
        return exit_status(
            lambda: work(options(**values)),
            expected=expected,
            stopped=stopped.format(**values),
            paths=[values[name] for name in paths],
            extra=extra,
        )

    return make_parser, main


def add_loading_options(parser: Any) -> None:
    """Adds the options of how a model is loaded."""
    add_options(parser, LoadingOptions)


def add_options(parser: Any, options: type, shown: set[str] | None = None) -> None:
    """Adds the fields of a dataclass to a parser, each under the heading of the class that has it.

    Args:
        parser: An `argparse.ArgumentParser`.
        options: The dataclass.
        shown: Names that the help shows; left out: all. What must be given is always shown.
    """
    hints, groups = get_type_hints(options), {}
    owners = {name: vars(kind) for kind in options.__mro__ for name in inspect.get_annotations(kind)}
    headings = {name: own.get("_argument_group_name") for name, own in owners.items()}
    for field in sorted(dataclasses.fields(options), key=lambda field: headings[field.name] is not None):
        heading = headings[field.name]
        if heading is not None and heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        _add(groups.get(heading, parser), field, hints[field.name], shown)


def _add(parser: Any, field: dataclasses.Field, hint: Any, shown: set[str] | None) -> None:
    """One option: a flag for a bool, one of several words for a Literal, any number of them for a sequence."""
    settings, kind, is_list = dict(field.metadata), *_kind(hint)
    is_positional, aliases = settings.pop("positional", False), settings.pop("aliases", ())
    is_required = field.default is REQUIRED
    default = None if is_required else field.default
    if not (is_positional or is_required or shown is None or field.name in shown):
        settings["help"] = argparse.SUPPRESS
    elif not (default is None or default is False or default == () or is_positional):
        settings["help"] += f" ({' '.join(map(str, default)) if is_list else default})"
    settings["help"] = settings["help"].replace("%", "%%")
    settings["default"] = list(default) if isinstance(default, tuple) else default
    if kind is bool:
        settings["action"] = "store_true"
    elif get_origin(kind) is Literal:
        settings["choices"] = get_args(kind)
    else:
        settings["type"] = kind
    if is_list:
        settings.setdefault("nargs", "+")
    names = [field.name] if is_positional else [f"--{field.name}", *aliases]
    parser.add_argument(*names, **({} if is_positional else {"required": is_required}), **settings)


def _kind(hint: Any) -> tuple[Any, bool]:
    """What one word of an option becomes, and whether it takes several."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(each for each in get_args(hint) if each is not type(None))
    origin = get_origin(hint)
    if origin is None or origin is Literal:
        return hint, False
    return get_args(hint)[0], True


def _usage(parser: argparse.ArgumentParser) -> str:
    """The command with what must be given; the rest is below."""
    words = [parser.prog]
    for action in parser._actions:
        name = str(action.metavar or action.dest.upper())
        if not action.option_strings:
            words.append({None: name, "?": f"[{name}]", "*": f"[{name} ...]"}.get(action.nargs, f"{name} [{name} ...]"))
        elif action.required:
            words.append(f"{action.option_strings[0]} {name}")
    return " ".join([*words, "[--option value ...]"]).replace("%", "%%")


def exit_status(
    work: Callable[[], int | None],
    *,
    expected: tuple[type[Exception], ...] = (UserError, OSError),
    stopped: str = "Stopped.",
    paths: Sequence[str | None] = (),
    extra: str | None = None,
) -> int:
    """Runs the work of a command and returns its exit status.

    Args:
        work: Does it; returns the exit status, or None for 0.
        expected: Errors that the user can put right. A full disk always is one.
        stopped: What Ctrl-C is answered with.
        paths: Models that were asked for. An error of the Hub client does not say which of them is missing.
        extra: The extra of hf-gpt that holds packages which may be missing.

    Returns:
        That of the work; 2 after an expected error, with one line on standard error; 130 after Ctrl-C.
    """
    try:
        return work() or 0
    except ImportError as error:
        if extra is None:
            raise
        print(f"error: this needs more packages ({error}): {install_hint(extra)}", file=sys.stderr)
    except (OSError, *expected) as error:
        is_full = isinstance(error, OSError) and error.errno in _NO_ROOM
        if not is_full and not isinstance(error, expected):
            raise
        advice = ". Make room on the disk. Files that are there are whole." if is_full else ""
        # Errors of libraries fill several lines.
        message = re.sub(r"\s*\n\s*", " ", with_missing_paths(error, *paths))
        print(f"error: {message}{advice}", file=sys.stderr)
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return INTERRUPTED
    return 2


def with_missing_paths(error: Exception, *paths: str | None) -> str:
    """The message of an error; that of an `OSError` also names the paths that are no folders here."""
    absent = [path for path in paths if path is not None and path not in str(error) and not Path(path).exists()]
    return f"{error} There is no folder {' or '.join(absent)}." if absent and isinstance(error, OSError) else str(error)


def describe_texts(count: int, args: Any) -> tuple[str, str]:
    """Name and text of the line about what was read from `--train_file`."""
    from hf_gpt.data.corpus import describe_split

    documents = f"{count:,} document{'' if count == 1 else 's'}"
    split = describe_split(args.train_file, args.document_separator)
    return "corpus", f"{', '.join(args.train_file)}: {documents}{split}"
