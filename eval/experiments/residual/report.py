"""Table of perplexity and compute."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from eval.experiments.common.reports import listed, markdown_table, spread


NAMES = {
    "q": "q, saturated",
    "wider q": "wider q, saturated",
    "ngram_cnn": "q + n-gram CNN",
    "own_trunk": "q + its own trunk, both directions",
    "encoder_untrained": "q + encoder, untrained",
    "encoder": "q + encoder, pretrained",
}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each model, over its seeds."""
    base = {row["seed"]: row for row in rows if row["name"] == "q"}
    lines = []
    for name, title in NAMES.items():
        found = [row for row in rows if row["name"] == name]
        if not found:
            continue
        changes = [row["perplexity"] / base[row["seed"]]["perplexity"] - 1 for row in found]
        is_residual = "gain" in found[0]
        lines.append(
            {
                "model": title,
                "parameters": f"{fmean(row['parameters'] for row in found) / 1e6:.2f} M",
                "CPU s": f"{fmean(row['cpu_seconds'] for row in found):.0f}",
                "held-out AUC": spread([row["auc"] for row in found]) if is_residual else "",
                "nats a text gained": listed(_interval(row) for row in found) if is_residual else "",
                "perplexity a word": spread([row["perplexity"] for row in found], 1),
                "against q, each seed": listed(f"{change:+.1%}" for change in changes) if name != "q" else "",
            }
        )
    return markdown_table(lines)


def _interval(row: dict[str, Any]) -> str:
    return f"{row['gain']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
