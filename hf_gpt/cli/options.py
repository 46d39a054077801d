"""Names and help of the options of the training commands, read without importing PyTorch.

`import transformers.training_args` takes seconds. `--help` and the check of option names need only the text of its
fields, so that text is read from the syntax tree of the file.
"""

import argparse
import ast
import dataclasses
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_type_hints

from hf_gpt.cli.one_line_help import OneLineHelp


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: `--name`, the type and default as source text, and its help."""

    name: str
    type: str = "str"
    default: str = ""
    help: str = ""


CONFIG = Option("config", "path or name", "", "Recipe to start from: a .yaml file, or the name of a built-in one.")


def options_of(dataclass_type: type) -> list[Option]:
    """The options of a dataclass that is imported already."""
    hints = get_type_hints(dataclass_type)
    options = []
    for field in dataclasses.fields(dataclass_type):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        shown = "" if default is None or default is dataclasses.MISSING else _shown_default(default)
        options.append(Option(field.name, _short_type(str(hints[field.name])), shown, field.metadata.get("help", "")))
    return options


def options_in_source(source: Path, class_name: str) -> list[Option]:
    """The options of a dataclass in a file that is not imported.

    Raises:
        ValueError: the file has no such class.
    """
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            fields = [
                item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            ]
            return [_option_from_syntax(item) for item in fields]
    raise ValueError(f"{source} has no class {class_name}.")


def training_options() -> tuple[list[Option], list[Option]]:
    """The options of `HfGptTrainingArguments`: those declared here, and those inherited from the library."""
    own = options_in_source(Path(__file__).parents[1] / "training" / "training_arguments.py", "HfGptTrainingArguments")
    spec = importlib.util.find_spec("transformers")
    library = options_in_source(Path(spec.submodule_search_locations[0]) / "training_args.py", "TrainingArguments")
    names = {option.name for option in own}
    return own, [option for option in library if option.name not in names]


def command_options(dataclass_types: Iterable[type]) -> dict[str, list[Option]]:
    """All options of a training command by heading: those of `dataclass_types`, then the training arguments."""
    groups = {kind._argument_group_name: options_of(kind) for kind in dataclass_types}
    own, library = training_options()
    # A command may give an option of training another default.
    named = {option.name for options in groups.values() for option in options}
    own, library = ([option for option in options if option.name not in named] for options in (own, library))
    return {
        "recipe": [CONFIG],
        **groups,
        "training": own,
        "all other fields of transformers.TrainingArguments": library,
    }


def make_help_parser(
    prog: str,
    description: str,
    groups: Mapping[str, Sequence[Option]],
    *,
    usage: str,
    epilog: str | None = None,
    is_short: bool = False,
) -> argparse.ArgumentParser:
    """A parser that knows options and their help; values stay text.

    It prints `--help`. Values are parsed by `HfArgumentParser` once the heavy imports are paid for.

    Args:
        prog: The command.
        description: Above the options.
        groups: Options by heading.
        usage: How it is called.
        epilog: Below the options.
        is_short: Whether an option has one line.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        usage=usage,
        formatter_class=OneLineHelp if is_short else argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for heading, options in groups.items():
        group = parser.add_argument_group(heading)
        for option in options:
            text = option.help + (f" (default: {option.default})" if option.default else "")
            choices = option.type.split("|") if "|" in option.type and "[" not in option.type else None
            group.add_argument(
                f"--{option.name}",
                metavar=_metavar(option.type),
                nargs="*" if option.type.startswith("list") else "?",
                choices=choices,
                help=text.replace("%", "%%") or None,
            )
    return parser


def _metavar(kind: str) -> str:
    # A long list of choices would be longer than the help; an error names them all.
    return kind.upper() if kind.isidentifier() else kind if len(kind) <= 60 else "NAME"


def _option_from_syntax(item: ast.AnnAssign) -> Option:
    name, kind = item.target.id, ast.unparse(item.annotation)
    if not isinstance(item.value, ast.Call):
        return Option(name, _short_type(kind))
    keywords = {keyword.arg: keyword.value for keyword in item.value.keywords}
    default = _literal(keywords.get("default"))
    metadata = keywords.get("metadata")
    entries = zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
    help_text = next((_literal(value) for key, value in entries if _literal(key) == "help"), None)
    if ast.unparse(item.value.func) == "option":
        default, help_text = map(_literal, item.value.args)
    shown = "" if default is None else _shown_default(default)
    return Option(name, _short_type(kind), shown, " ".join(str(help_text or "").split()))


def _literal(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _shown_default(default: object) -> str:
    if isinstance(default, (list, tuple)):
        return " ".join(repr(item) if item == "" else str(item) for item in default)
    return str(default)


def _short_type(annotation: str) -> str:
    """`str` for `<class 'str'>` and `str | None`; the choices of a Literal as `a|b`."""
    text = annotation.removeprefix("<class '").removesuffix("'>").replace("typing.", "")
    text = "|".join(part.strip() for part in text.split("|") if part.strip() not in ("None", ""))
    if text.startswith("Literal[") and text.endswith("]"):
        return text[len("Literal[") : -1].replace("'", "").replace(", ", "|")
    return text or "str"
