"""Values with their intervals, one below another on one scale, as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hf_gpt.reporting.chart import format_number
from hf_gpt.reporting.report import escape


_WIDTH, _ROW, _LABEL, _VALUE = 420, 28, 130, 64


@dataclass(frozen=True)
class Interval:
    """A named value; `low` and `high` are None where no interval is known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def interval_chart(title: str, intervals: Sequence[Interval]) -> str:
    """A figure with a dot and a bar for each value; empty without a finite value.

    Args:
        title: What is shown, and which direction is better.
        intervals: From top to bottom.
    """
    shown = [item for item in intervals if math.isfinite(item.value)]
    if not shown:
        return ""
    ends = [end for item in shown for end in (item.value, item.low, item.high) if end is not None]
    least, most = min(ends), max(ends)
    room = 0.08 * (most - least) or max(1e-9, 0.05 * abs(most))
    least, most = least - room, most + room

    def position(value: float) -> str:
        return f"{_LABEL + (_WIDTH - _LABEL - _VALUE) * (value - least) / (most - least):.1f}"

    rows = []
    for number, item in enumerate(shown):
        middle = number * _ROW + _ROW / 2
        said = f"{item.name}: {format_number(item.value)}"
        bar = ""
        if item.low is not None and item.high is not None:
            said += f", 95 % interval {format_number(item.low)} to {format_number(item.high)}"
            bar = (
                f'<line class="bar" x1="{position(item.low)}" x2="{position(item.high)}" y1="{middle}" y2="{middle}"/>'
            )
        rows.append(
            f'<g role="img" aria-label="{escape(said)}"><title>{escape(said)}</title>'
            f'<text x="0" y="{middle + 4}">{escape(_short(item.name))}</text>'
            f'<line class="rail" x1="{_LABEL}" x2="{_WIDTH - _VALUE}" y1="{middle}" y2="{middle}"/>{bar}'
            f'<circle cx="{position(item.value)}" cy="{middle}" r="4.5"/>'
            f'<text x="{_WIDTH - _VALUE + 12}" y="{middle + 4}">{format_number(item.value)}</text></g>'
        )
    body, height = "\n".join(rows), len(shown) * _ROW
    return (
        f'<figure class="chart intervals"><figcaption><h3>{escape(title)}</h3></figcaption>\n'
        f'<svg role="group" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {height}">\n{body}\n</svg></figure>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
