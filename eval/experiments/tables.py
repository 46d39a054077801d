"""Tables of experiments: the same rows as JSON and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as a Markdown table.

    Args:
        rows: Figures by name; one that is missing leaves its cell empty.
        columns: Heading of each column, and the name of its figure, with a format after a colon: `"auc:.3f"`.
    """
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = []
        for column in columns.values():
            name, _, form = column.partition(":")
            cells.append("" if row.get(name) is None else format(row[name], form))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
