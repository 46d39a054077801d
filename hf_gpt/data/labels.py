"""Class labels: one name for a class, however the format of a file writes it."""

import math
import re
from typing import Any


_BOOLEANS = {"true", "false"}
_WHOLE_FLOAT = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_WHOLE = re.compile(r"0|[1-9][0-9]*")


def label_name(label: Any) -> str | None:
    """The name of the class that a label stands for, None where it is none.

    JSON and parquet know booleans and numbers, csv and yaml write them in several ways. `true`, `True` and `TRUE` are
    the class "true"; 1, 1.0 and "1.0" are "1"; any other text is its own name.
    """
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int):
        return str(label)
    if isinstance(label, float):
        return str(int(label)) if math.isfinite(label) and label.is_integer() else None
    if not isinstance(label, str) or not label.strip():
        return None
    if label.lower() in _BOOLEANS:
        return label.lower()
    whole = _WHOLE_FLOAT.fullmatch(label)
    return whole[1].replace("-0", "0") if whole else label


def label_number(label: Any) -> int | None:
    """The number from 0 on that a label is, None where it is none; a boolean is no number."""
    name = label_name(label)
    return int(name) if name is not None and _WHOLE.fullmatch(name) else None


def class_names(labels: set[str]) -> list[str]:
    """The classes in the order of their ids, of the names that were found.

    Numbers from 0 on are ids, of which some may not occur; where most would not, they are names, by size.
    """
    numbers = [label_number(label) for label in labels]
    if not labels or None in numbers:
        return sorted(labels)
    if max(numbers) < max(2 * len(numbers), 10):
        return [str(number) for number in range(max(numbers) + 1)]
    return [str(number) for number in sorted(numbers)]
