"""Plot of perplexity against compute."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.experiments.residual.report import NAMES


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Perplexity a word against CPU seconds, a point for each seed; bars are 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, title in NAMES.items():
        found = [row for row in rows if row["name"] == name]
        if not found:
            continue
        values = [row["perplexity"] for row in found]
        bars = None
        if "gain" in found[0]:
            below = [row["perplexity"] - row["perplexity_low"] for row in found]
            bars = [below, [row["perplexity_high"] - row["perplexity"] for row in found]]
        axes.errorbar([row["cpu_seconds"] for row in found], values, bars, fmt="o", capsize=3, label=title)
    axes.set_xscale("log")
    axes.set_xlabel("CPU seconds of training, that of q included")
    axes.set_ylabel("perplexity a word on unseen texts (lower is better)")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=160)
