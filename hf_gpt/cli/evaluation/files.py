"""Results as JSON, CSV and Markdown, each file whole or not at all."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gpt.evaluation.tasks.metrics import MEANINGS
from hf_gpt.files.atomic_files import write_text
from hf_gpt.reporting.chart import format_number


COLUMNS = ("task", "model", "metric", "value", "low", "high", "interval", "items", "seeds")
# Of a task whose metrics have no labels, tables show this many.
_UNKNOWN_SHOWN = 4


def write_files(folder: Path, results: Mapping[str, Any]) -> list[Path]:
    """Writes `results.json`, `results.csv` and `results.md` and returns their paths."""
    return [
        write_text(folder / "results.json", json.dumps(finite(results), indent=1, ensure_ascii=False) + "\n"),
        write_text(folder / "results.csv", as_csv(results["results"])),
        write_text(folder / "results.md", as_markdown(results)),
    ]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The metrics, one a line; what is not known is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if row[key] is None else row[key] for key in COLUMNS})
    return stream.getvalue()


def as_markdown(results: Mapping[str, Any]) -> str:
    """A table of metrics for each task, then the differences between models."""
    parts = ["# Evaluation"]
    if len(results["tasks"]) > 1 and not results.get("curves"):
        parts.append(f"{markdown_table(*overview(results))}\n\n{OVERVIEW_NOTE}")
    for task, names, rows in tables(results):
        parts.append(f"## {_cell(task)}\n\n{markdown_table(names, rows)}")
    if results.get("comparisons"):
        names, rows = difference_table(results["comparisons"])
        parts.append(f"## Differences\n\n{markdown_table(names, rows)}\n\n{DIFFERENCE_NOTE}")
    for curve in results.get("curves", ()):
        names, rows = best_table(curve)
        parts.append(f"## {_cell(curve['task'])}: each model at its own best sampler\n\n{markdown_table(names, rows)}")
    return "\n\n".join(parts) + "\n"


OVERVIEW_NOTE = "* worse than another model, p below 0.05 after correction for the number of comparisons."
INTERVAL_NOTE = (
    "Brackets hold 95 % intervals: by bootstrap over items, for unconditional samples over seeds (Student) or by the "
    "metric itself. ↑ higher is better, ↓ lower is better, ≈ the value of real texts is best."
)
DIFFERENCE_NOTE = (
    "First model minus second: on the same items (paired bootstrap) or over seeds (Welch). The last column is "
    "corrected for the number of comparisons (Holm)."
)


def overview(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a table with the main metric of each task: the first that says which model is better."""
    models = [entry["name"] for entry in results["models"]]
    worse = {
        (row["task"], row["metric"], row["second" if _first_is_better(row) else "first"])
        for row in results.get("comparisons", ())
        if row["metric"] in MEANINGS and row["p_adjusted"] < 0.05
    }
    rows = []
    for task in dict.fromkeys(row["task"] for row in results["results"]):
        of = [row for row in results["results"] if row["task"] == task]
        judged = [n for n in shown_metrics(list(dict.fromkeys(row["metric"] for row in of))) if is_judged(n)]
        if judged:
            cells = {row["model"]: with_interval(row) for row in of if row["metric"] == judged[0]}
            marked = [cells.get(m, "") + (" *" if (task, judged[0], m) in worse else "") for m in models]
            rows.append([f"{task}: {metric_label(judged[0])}", *marked])
    return ["Main metric", *models], rows


def is_judged(name: str) -> bool:
    """Whether a metric says which of two models is better."""
    return name in MEANINGS and MEANINGS[name].better != "reference"


def _first_is_better(row: Mapping[str, Any]) -> bool:
    return (row["difference"] > 0) == (MEANINGS[row["metric"]].better == "higher")


def tables(results: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Of each task its name, the heads of a table, and its rows: models by metrics that have labels."""
    found = []
    for task in dict.fromkeys(row["task"] for row in results["results"]):
        rows = [row for row in results["results"] if row["task"] == task]
        metrics = shown_metrics(list(dict.fromkeys(row["metric"] for row in rows)))
        models = list(dict.fromkeys(row["model"] for row in rows))
        cells = {(row["model"], row["metric"]): with_interval(row) for row in rows}
        items = max(row["items"] for row in rows)
        heads = [f"{items:,} items", *map(metric_label, metrics)]
        found.append((task, heads, [[model, *(cells.get((model, f), "") for f in metrics)] for model in models]))
    return found


def shown_metrics(names: Sequence[str]) -> list[str]:
    """The metrics that have labels, in the order of `MEANINGS`; of others the first few."""
    known = [name for name in MEANINGS if name in names]
    return known or list(names[:_UNKNOWN_SHOWN])


def metric_label(name: str) -> str:
    """The label of a metric, and which direction is better."""
    if name not in MEANINGS:
        return name
    arrow = {"higher": "↑", "lower": "↓", "reference": "≈"}[MEANINGS[name].better]
    return f"{MEANINGS[name].label} {arrow}"


def with_interval(row: Mapping[str, Any]) -> str:
    """A value and its interval as text."""
    value = short(row["value"])
    if row["low"] is None or not math.isfinite(row["low"]):
        return value
    return f"{value} [{short(row['low'])}, {short(row['high'])}]"


def short(value: float) -> str:
    """A number for a table: three significant digits, of what is below 1 three decimals."""
    if abs(value) < 1 and (value == 0 or abs(value) >= 5e-4):
        return f"{value:.3f}"
    if 1 <= abs(value) < 1000:
        return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"
    if 1e6 <= abs(value) < math.inf:
        return f"{value:.2e}"
    return format_number(value)


def difference_table(comparisons: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the differences in metrics that have labels."""
    rows = [
        [
            f"{row['task']}: {MEANINGS[row['metric']].label}",
            f"{row['first']} − {row['second']}",
            f"{_signed(row['difference'])} [{_signed(row['low'])}, {_signed(row['high'])}]",
            _p_value(row["p_value"]),
            _p_value(row["p_adjusted"]),
        ]
        for row in comparisons
        if row["metric"] in MEANINGS
    ]
    return ["Metric", "Models", "Difference", "p", "p, corrected"], rows


def best_table(curve: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the models at their own best samplers, with the area that each curve dominates."""
    metrics = list(dict.fromkeys(best["metric"] for best in curve["best"]))
    cells = {}
    for best in curve["best"]:
        spread = f" ± {short(best['spread'])}" if best["seeds"] > 1 else ""
        cells[best["model"], best["metric"]] = f"{short(best['mean'])}{spread} ({best['setting']})"
    rows = [
        [model, *(cells.get((model, metric), "") for metric in metrics), short(area)]
        for model, area in curve["hypervolume"].items()
    ]
    return ["Model", *map(metric_label, metrics), "Hypervolume"], rows


def markdown_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{short(value)}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
