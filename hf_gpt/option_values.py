"""Values of options: read from text, and checked."""

import json
import re
from dataclasses import field
from typing import Any

from hf_gpt.errors import ConfigError


def option(default: Any, help: str, **settings: Any) -> Any:
    """The field of a dataclass whose fields are options, as `HfArgumentParser` reads them.

    Args:
        default: Its value where none is given; each instance has a list of its own.
        help: What `--help` says of it.
        settings: As for `ArgumentParser.add_argument`.
    """
    metadata = {"help": help, **settings}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_at_least(arguments: Any, **least: int) -> None:
    """Raises `ConfigError` for the first option below its least value; one that is left out is none."""
    for name, value in least.items():
        given = getattr(arguments, name)
        if given is not None and given < value:
            raise ConfigError(f"--{name} must be at least {value}, got {given}.")


def parse_mapping(text: "str | dict[str, Any] | None", option: str) -> dict[str, Any]:
    """Reads `a=1,b=2` or a JSON object.

    Args:
        text: What was given; None is an empty mapping, a mapping is returned as a copy.
        option: Name of the option, for the error.

    Raises:
        ConfigError: the text is neither.
    """
    import yaml

    if text is None or isinstance(text, dict):
        return dict(text or {})
    try:
        if not isinstance(text, str):
            raise ValueError("neither a text nor a mapping")
        stripped = text.strip()
        if stripped.startswith("{"):
            return {key: _number_or(value) for key, value in json.loads(stripped).items()}
        pairs = [pair.split("=", 1) for pair in stripped.split(",") if pair.strip()]
        return {key.strip(): _number_or(yaml.safe_load(value)) for key, value in pairs}
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"--{option}: cannot read {text!r}. Write name=value,name=value or a JSON object such as "
            "'{\"hidden_size\": 256}'."
        ) from error


def from_json(value: Any, opening: str) -> Any:
    """What a text of JSON that begins with this bracket holds; anything else, such as a template, as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(opening):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _number_or(value: Any) -> Any:
    # YAML 1.1 takes 1e-3 for a text: its floats need a dot.
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value) else value


def as_written(value: Any, written: Any) -> Any:
    """The text of a plain value, or of those in a list; nothing and mappings stay what they are."""
    if isinstance(value, (list, tuple)) and isinstance(written, list) and len(value) == len(written):
        return [as_written(item, text) for item, text in zip(value, written, strict=True)]
    return written if isinstance(written, str) and value is not None else value
