"""
How cost grows: seconds of a training step over its tokens, and seconds of a decoded token over its position.

A training step is forward and backward pass and the optimizer, by rows of equal length, in float32; sizes take turns.
A line is fitted to it; the table says how far from the line a point lies. A decoded token is one step of
`fast_generate`, with its static cache, at batch 1, timed as by `python -m eval.benchmarks.speed positions`.

    python -m eval.experiments.pretraining.scaling --output_dir runs/scaling
"""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from eval.benchmarks.speed import positions
from eval.benchmarks.speed.models import SIZES, build
from eval.benchmarks.speed.timing import CLOCKS, Contender, interleave, timed, use_clock
from eval.experiments.common.command import make_parser, start
from eval.experiments.common.reports import markdown_table, write_page
from hf_gpt.allocator import keeps_freed_memory
from hf_gpt.files.atomic_files import write_json
from hf_gpt.reporting.environment import describe_environment
from hf_gpt.reporting.plots import light_colours, save_png
from hf_gpt.training.optim.muon_adamw import build_muon_adamw


LAST_POSITION = 1024
# Positions of a bin, small where there are few behind them.
BINS = (16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024)


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "scaling", seeds=None)
    parser.add_argument("--size", default="10m", choices=list(SIZES), help="of the model")
    parser.add_argument("--vocab_size", type=int, default=8192)
    parser.add_argument("--length", type=int, default=128, help="tokens in a row of training")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 4, 8, 16, 24, 32], help="in a step")
    parser.add_argument("--rounds", type=int, default=3, help="that count")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: seconds of computing")
    options = parser.parse_args(argv)
    use_clock(options.clock)
    steps = training_seconds(options.size, options.vocab_size, options.length, options.rows, options.rounds)
    tokens = decoding_seconds(options.size, options.vocab_size, options.rounds)
    found = {"training": steps, "decoding": tokens, "environment": describe_environment()}
    write_json(options.output_dir / "scaling.json", found)
    report = write_page(options.output_dir, "scaling", *tables(found))
    plot(found, options.output_dir / "scaling.png", report)
    print(report)
    return 0


def training_seconds(
    size: str, vocab_size: int, length: int, rows: Sequence[int], rounds: int
) -> list[dict[str, float]]:
    """`tokens` and `seconds` of a step for each number of rows, and `line`, what a fitted line says."""
    model = build("hf_gpt", size, vocab_size, length).train()
    optimizer = build_muon_adamw(model, learning_rate=1e-4)

    def step(batch: torch.Tensor) -> None:
        model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    batches = [torch.randint(0, vocab_size, (count, length), device=model.device) for count in rows]
    with keeps_freed_memory():
        contenders = [Contender(str(b.numel()), timed(functools.partial(step, b))) for b in batches]
        measured = interleave(contenders, rounds)
    points = [{"tokens": b.numel(), "seconds": row["seconds"]} for b, row in zip(batches, measured, strict=True)]
    slope, offset = fit_line([p["tokens"] for p in points], [p["seconds"] for p in points])
    return [{**point, "line": offset + slope * point["tokens"]} for point in points]


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and offset of the line whose relative distances from `y` have the least sum of squares."""
    slope, offset = np.polyfit(x, y, 1, w=1 / np.asarray(y))
    return float(slope), float(offset)


def decoding_seconds(size: str, vocab_size: int, rounds: int) -> list[dict[str, float]]:
    """`first`, `last` and `seconds` of a token at the positions of each bin, for each type of weights (`weights`)."""
    contenders = positions.ours(size, vocab_size, rows=1, length=LAST_POSITION)
    rows = []
    for row in interleave(contenders, rounds):
        milliseconds = row["milliseconds"]
        for first, last in itertools.pairwise(BINS):
            found = median(value for position, value in milliseconds.items() if first <= position < last)
            rows.append({"weights": row["weights"], "first": first, "last": last - 1, "seconds": found / 1000})
    return rows


def tables(found: dict[str, Any]) -> list[str]:
    """Both measurements as tables, and a sentence on each."""
    steps = [{**row, "off": row["seconds"] / row["line"] - 1} for row in found["training"]]
    worst = max(abs(row["off"]) for row in steps)
    tokens = [{**row, "microseconds": 1e6 * row["seconds"]} for row in found["decoding"]]
    step_columns = {"tokens in a step": "tokens:,", "seconds": "seconds:.3f", "line": "line:.3f", "off": "off:+.1%"}
    columns = {"weights": "weights", "from": "first", "to": "last", "microseconds a token": "microseconds:.0f"}
    told = f"A step is at most {worst:.1%} off a line over its tokens."
    parts = [markdown_table(steps, step_columns), told, markdown_table(tokens, columns)]
    for weights in dict.fromkeys(row["weights"] for row in tokens):
        some = [row["seconds"] for row in tokens if row["weights"] == weights]
        growth = some[-1] / some[0]
        parts.append(f"{weights}: a token at the last positions takes {growth:.2f} times as long as at the first.")
    return parts


def plot(found: dict[str, Any], path: Path, label: str) -> None:
    """Both measurements side by side."""

    def panels(left: Axes, right: Axes) -> None:
        colours = light_colours()
        steps = found["training"]
        left.plot([row["tokens"] for row in steps], [row["line"] for row in steps], color=colours[1], label="line")
        left.plot([row["tokens"] for row in steps], [row["seconds"] for row in steps], "o", color=colours[0])
        left.set(xlabel="tokens in a step", title="seconds of a training step", ylim=(0, None), xlim=(0, None))
        for colour, weights in zip(colours, dict.fromkeys(row["weights"] for row in found["decoding"]), strict=False):
            some = [row for row in found["decoding"] if row["weights"] == weights]
            middle = [(row["first"] + row["last"]) / 2 for row in some]
            right.plot(middle, [1e3 * row["seconds"] for row in some], "o-", color=colour, label=weights)
        right.set(xlabel="position", title="milliseconds of a decoded token", ylim=(0, None), xlim=(0, LAST_POSITION))
        right.legend(frameon=False)

    save_png(panels, path, width=960, height=380, columns=2, label=label)


if __name__ == "__main__":
    start(main)
