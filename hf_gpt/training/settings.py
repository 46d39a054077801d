"""Settings of a training command: defaults < recipe (yaml) < command line."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hf_gpt.errors import ConfigError, did_you_mean
from hf_gpt.files.model_paths import check_exists
from hf_gpt.files.output_paths import OUTPUTS
from hf_gpt.option_names import former_name_in, renamed
from hf_gpt.option_ranges import NEGATIVE_NUMBER, wrong_number
from hf_gpt.option_values import as_written, from_json, parse_mapping


RECIPES = Path(__file__).with_name("recipes")
# Former names of recipes, which are refused with the name that took their place.
_RENAMED_RECIPES = {"default": "distil_larger"}
ADVERSARIAL_RECIPES = Path(__file__).parents[1] / "adversarial" / "recipes"


@dataclass(frozen=True)
class Settings:
    """Parsed settings: instances of the dataclasses in the order they were asked for, and where they come from.

    Attributes:
        values: Every option by name, as given or by default, in plain types.
        recipe: The recipe's path, if one was used.
        given: Names of the options that the recipe or the command line has.
        own_overrides: Names of the fields of `config_overrides` that the command line has.
    """

    arguments: tuple[Any, ...]
    values: dict[str, Any]
    recipe: Path | None
    given: frozenset[str] = frozenset()
    own_overrides: frozenset[str] = frozenset()


def built_in_recipes(folder: Path = RECIPES) -> list[str]:
    """Names that `--config` takes instead of a path."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_recipe(name_or_path: str, folder: Path = RECIPES) -> Path:
    """The recipe's file, a built-in one from `folder`; raises `ConfigError` where there is neither."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = built_in_recipes(folder)
    if name_or_path in names:
        return folder / f"{name_or_path}.yaml"
    if (successor := _RENAMED_RECIPES.get(name_or_path)) in names:
        raise ConfigError(f"--config {name_or_path} is now --config {successor}. Rename it.")
    raise ConfigError(
        f"--config: no file or built-in recipe {name_or_path!r}{did_you_mean(name_or_path, names)} "
        f"Built in: {', '.join(names) or 'none'}."
    )


class Recipe(dict):
    """Settings of a recipe as yaml types them, and in `written` as they are written.

    Yaml takes `no` for false and `2020-01-01` for a date, which an option that takes text must not.
    """

    def __init__(self, typed: Mapping[str, Any], written: Mapping[str, Any]):
        super().__init__(typed)
        self.written = dict(written)


def read_recipe(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """The settings of a yaml file, of options among `names`.

    Raises:
        ConfigError: the file is not a yaml mapping, or has a key that is no option.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        content, written = yaml.safe_load(text), yaml.load(text, Loader=yaml.BaseLoader)
    # A date that does not exist is a bare ValueError, and brackets without end exhaust the stack.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as yaml: {error}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of options to values, found a {type(content).__name__}.")
    for key in content:
        if key not in set(names):
            if (successor := renamed(str(key), set(names))) is not None:
                raise ConfigError(f"{path}: {key!r} is now {successor!r}. Rename it.")
            raise ConfigError(f"{path}: unknown key {key!r}{did_you_mean(str(key), list(names))} See --help.")
    return Recipe(content, written or {})


def take_options(argv: Sequence[str], *names: str) -> tuple[dict[str, str | None], list[str]]:
    """Takes `--name X` or `--name=X` out of a command line: the last values, None where one lacks, and the rest."""
    values: dict[str, str | None] = {}
    rest: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        name, equals, value = token.partition("=")
        if name in names:
            values[name] = value if equals else next(tokens, None)
        else:
            rest.append(token)
    return values, rest


def split_config_option(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Takes `--config X` out of the command line; raises `ConfigError` where it has no value."""
    values, rest = take_options(argv, "--config")
    if None in values.values():
        raise ConfigError("--config needs a value: a .yaml file or the name of a built-in recipe.")
    return values.get("--config"), rest


def check_option_names(argv: Sequence[str], names: Iterable[str]) -> None:
    """Raises `ConfigError` for an argument before all options, or the first `--option` that is none of `names`."""
    valid = set(names)
    if argv and not argv[0].startswith("-"):
        raise ConfigError(_stray(argv[0], valid))
    for token in argv:
        if not token.startswith("--") or token == "--":
            continue
        name = token[2:].partition("=")[0].replace("-", "_")
        if name not in valid and name.removeprefix("no_") not in valid:
            if (former := former_name_in([token], valid)) is not None:
                raise ConfigError(former)
            hint = did_you_mean(f"--{name}", [f"--{option}" for option in valid])
            raise ConfigError(f"unknown option --{name}{hint} See --help.")


def _stray(argument: str, names: Collection[str]) -> str:
    hint = ": files to train on go to --train_file" if "train_file" in names else ""
    return f"{argument!r} belongs to no option{hint}. See --help."


def load_settings(
    argv: Sequence[str], dataclass_types: Sequence[type], recipe: Mapping[str, Any] | None, recipe_path: Path | None
) -> Settings:
    """Parses a recipe, whose path errors name, and a command line without `--config` into dataclasses.

    A recipe becomes options in front of the command line, so that both are read by the same rules and the last wins.

    Raises:
        ConfigError: a value of the wrong type or out of range, or an option that does not exist.
        CheckpointError: the model or tokenizer is not there.
    """
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str):
            stray = re.match(r"unrecognized arguments: (?!-)(\S+)", message)
            raise ConfigError(_stray(stray[1], {action.dest for action in self._actions}) if stray else message)

    parser = Parser(dataclass_types, allow_abbrev=False)
    written = getattr(recipe, "written", {})
    parser._negative_number_matcher = NEGATIVE_NUMBER
    recipe = dict(recipe or {})
    tokens, defaults = _as_tokens(recipe, written, {action.dest: action for action in parser._actions})
    parser.set_defaults(**defaults)
    try:
        parser.parse_args(tokens)
    except ConfigError as error:
        raise ConfigError(f"{recipe_path}: {error}") from error
    namespace = parser.parse_args([*tokens, *argv])

    own_overrides: frozenset[str] = frozenset()
    if isinstance(recipe.get("config_overrides"), dict) and isinstance(namespace.config_overrides, str):
        given = parse_mapping(namespace.config_overrides, "config_overrides")
        if any(token.partition("=")[0].replace("-", "_") == "__config_overrides" for token in argv):
            own_overrides = frozenset(given)
        namespace.config_overrides = json.dumps({**recipe["config_overrides"], **given})

    values = dict(vars(namespace))
    if (wrong := wrong_number(values)) is not None:
        raise ConfigError(wrong)
    for option in ("model_name_or_path", "tokenizer_name"):
        if values.get(option) is not None:
            check_exists(values[option], option)
    arguments = []
    for kind in dataclass_types:
        own = {field.name: values[field.name] for field in fields(kind) if field.init}
        arguments.append(kind(**own))
    words = (token[2:].partition("=")[0].replace("-", "_") for token in argv if token.startswith("--"))
    return Settings(tuple(arguments), values, recipe_path, frozenset((*recipe, *words)), own_overrides)


def settings_to_yaml(settings: Settings, header: str = "") -> str:
    """The settings as a recipe with a comment at the top: loading it again gives the same settings.

    Written are all of our own options, and those of the library's `TrainingArguments`, whose value differs
    from its default or whose default differs from that of the settings' own class.
    """
    import yaml
    from transformers import HfArgumentParser, TrainingArguments

    # Compared as the parser gives them: it reads some of the library's defaults as another type than they are written.
    defaults = vars(HfArgumentParser(TrainingArguments).parse_args([]))
    own_defaults = vars(HfArgumentParser(type(settings.arguments[-1])).parse_args([]))
    kept = {}
    for name, value in settings.values.items():
        if name in defaults and defaults[name] == value == own_defaults[name]:
            continue
        kept[name] = from_json(value, "{")
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=119)


def _as_tokens(
    recipe: Mapping[str, Any], written: Mapping[str, Any], actions: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Splits a recipe into command-line tokens and, for what a command line cannot say, defaults."""
    tokens: list[str] = []
    defaults: dict[str, Any] = {}
    for key, value in recipe.items():
        takes_list = actions[key].nargs == "+"
        if key in written and (actions[key].type is str or actions[key].choices is not None):
            value = as_written(value, written[key])
        if takes_list and isinstance(value, (list, tuple, str)) and value:
            tokens += [f"--{key}", *([value] if isinstance(value, str) else [str(item) for item in value])]
        elif isinstance(value, dict):
            tokens.append(f"--{key}={json.dumps(value)}")
        elif isinstance(value, (list, tuple)) and (actions[key].type in (int, float) or key in OUTPUTS):
            raise ConfigError(f"{key} takes one value, and the recipe has a list of {len(value)}: {value}.")
        elif value is None or isinstance(value, (list, tuple)):
            defaults[key] = value
        else:
            tokens.append(f"--{key}={value}")
    return tokens, defaults
