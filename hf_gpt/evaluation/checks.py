"""Checks of a metric's input. Each error names the argument, the entry, and what to give instead."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def check_texts(name: str, texts: Any, at_least: int = 1) -> list[str]:
    """`texts` as a list, after making sure that it holds at least `at_least` texts and nothing else.

    Args:
        name: Of the argument, for the message.
        texts: A list, tuple, array or column of strings.
        at_least: How many texts the metric needs.

    Raises:
        ValueError: it is something else, has too few texts, or an entry is no text.
    """
    if texts is None:
        raise ValueError(f"{name} is missing. Give a list of texts.")
    if isinstance(texts, str | bytes):
        raise ValueError(f"{name} is a single {type(texts).__name__}. Give a list of texts, one entry for each.")
    try:
        texts = list(texts)
    except TypeError:
        raise ValueError(f"{name} is a {type(texts).__name__}. Give a list of texts.") from None
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name}[{row}] is {_shown(text)}, not a text. Every entry must be a str.")
    if len(texts) < at_least:
        raise ValueError(f"{name} holds {len(texts)} texts. This metric needs at least {at_least}.")
    return texts


def check_vector(name: str, values: Any, at_least: int = 1) -> np.ndarray:
    """`values` as a float64 array of shape `(n,)`, after making sure that all are finite numbers.

    Raises:
        ValueError: they are no numbers, not in one row, fewer than `at_least`, or one is NaN or infinite.
    """
    array = _check_array(name, values)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}. Give one number for each example.")
    return _check_content(name, array, at_least)


def check_integers(name: str, values: Any) -> np.ndarray:
    """`values` as an int64 array of shape `(n,)`.

    Raises:
        ValueError: they are no whole numbers, or not in one row.
    """
    array = check_vector(name, values)
    bad = np.flatnonzero(array != np.round(array))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {array[bad[0]]}. Every entry must be a whole number.")
    return array.astype(np.int64)


def check_features(name: str, features: Any, at_least: int = 2) -> np.ndarray:
    """`features` as a float64 array of shape `(n, dimensions)`, one row for each text.

    Raises:
        ValueError: they are no numbers, not a table, fewer than `at_least` rows, or one is NaN or infinite.
    """
    array = _check_array(name, features)
    if array.ndim != 2 or array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}. Give a table of shape (texts, dimensions).")
    return _check_content(name, array, at_least)


def check_same_length(**named: Sequence[Any]) -> None:
    """Makes sure that all arguments have one entry for each example.

    Raises:
        ValueError: their lengths differ.
    """
    if len({len(values) for values in named.values()}) > 1:
        lengths = ", ".join(f"{name} has {len(values)}" for name, values in named.items())
        raise ValueError(f"{lengths}. Give equally many of each, one for each example.")


def check_binary(name: str, labels: Any) -> np.ndarray:
    """`labels` as an int64 array of 0 and 1 in which both occur.

    Raises:
        ValueError: there are other values, or only one of the two.
    """
    array = check_vector(name, labels)
    found = np.unique(array)
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"{name} must be 0 or 1; found {_shown(found[~np.isin(found, (0, 1))][0].item())}.")
    if len(found) < 2:
        raise ValueError(f"{name} are all {int(found[0])}. Both classes must occur.")
    return array.astype(np.int64)


def _check_array(name: str, values: Any) -> np.ndarray:
    if values is None:
        raise ValueError(f"{name} is missing. Give numbers.")
    if hasattr(values, "detach"):
        values = values.detach().cpu().float().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, all rows equally long; got {_shown(values)}.") from None


def _check_content(name: str, array: np.ndarray, at_least: int) -> np.ndarray:
    if len(array) < at_least:
        raise ValueError(f"{name} holds {len(array)} entries. This metric needs at least {at_least}.")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        position = ", ".join(map(str, bad[0]))
        raise ValueError(f"{name}[{position}] is {array[tuple(bad[0])]}. Every number must be finite.")
    return array


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
