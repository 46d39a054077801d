"""Warnings that a run's log holds, as rows of a table: what was raised, at which steps, and what to do about it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_gpt.reporting.chart import format_number


NAMES = ("Warning", "Steps", "Last value", "Threshold", "What to do")

# Steps that are named one by one; of more, the first ones, the last and their number.
_NAMED = 6


def alert_rows(log_history: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """A row of `NAMES` for each warning in a trainer's log, in the order in which they first came."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in log_history:
        if "alert" in entry:
            found.setdefault(str(entry["alert"]), []).append(entry)
    return [
        [
            name,
            _steps(sorted({int(entry["step"]) for entry in entries})),
            format_number(float(entries[-1]["alert_value"])),
            format_number(float(entries[-1]["alert_threshold"])),
            _sentence(str(entries[-1].get("alert_advice", ""))),
        ]
        for name, entries in found.items()
    ]


def is_adversarial(log_history: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the log is of a run whose warnings are counted: one that says of no warning that there was none."""
    return any("warnings" in entry for entry in log_history)


def _steps(steps: Sequence[int]) -> str:
    if len(steps) <= _NAMED:
        return ", ".join(f"{step:,}" for step in steps)
    first = ", ".join(f"{step:,}" for step in steps[: _NAMED - 2])
    return f"{first}, … {steps[-1]:,} ({len(steps):,} times)"


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""
