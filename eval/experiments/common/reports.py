"""Tables of experiments, means with their spread, and curves between their points."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hf_gpt.files.atomic_files import write_text
from hf_gpt.reporting.plots import save_png


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> str:
    """Rows as a Markdown table.

    Args:
        rows: Metrics by name; one that is missing leaves its cell empty.
        columns: Heading of each column, and the name of its metric, with a format after a colon: `"auc:.3f"`. None:
            the names in the first row are the headings.
    """
    columns = dict.fromkeys(rows[0] if rows else ()) if columns is None else columns
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = []
        for heading, column in columns.items():
            name, _, form = (heading, "", "") if column is None else column.partition(":")
            cells.append("" if row.get(name) is None else format(row[name], form))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_page(folder: Path, name: str, *parts: str) -> str:
    """Writes the parts of a report, an empty line between them, to a Markdown file, and returns the text."""
    text = "\n\n".join(parts)
    write_text(folder / f"{name}.md", text + "\n")
    return text


def save_panels(path: Path, panels: Sequence[Callable[[Axes], None]], *, width: int, height: int, label: str) -> None:
    """Writes a PNG of panels side by side, each so wide."""

    def fill(*axes: Axes) -> None:
        for own, panel in zip(axes, panels, strict=True):
            panel(own)

    save_png(fill, path, width=width * len(panels), height=height, columns=len(panels), label=label)


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Mean and, of more than one value, the standard deviation."""
    values = list(values)
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def with_interval(found: Mapping[str, float]) -> str:
    """The AUC of a two-sample test with its interval."""
    return f"{found['auc']:.3f} ({found['auc_low']:.3f} to {found['auc_high']:.3f})"


def listed(values: Iterable[Any]) -> str:
    """The values of each seed, in a row."""
    return ", ".join(map(str, values))


def signed(value: float | None, digits: int = 3) -> str:
    """A gain or loss, or that it lies beyond what it is compared with."""
    return "beyond" if value is None else f"{value:+.{digits}f}"


def between(points: Iterable[tuple[float, float]], x: float) -> float | None:
    """The height at `x` on straight lines between points; None beyond them."""
    ordered = sorted(points)
    if not ordered or not ordered[0][0] <= x <= ordered[-1][0]:
        return None
    return float(np.interp(x, *zip(*ordered, strict=True)))
