"""
How cost grows: seconds of a training step over its tokens, and seconds of a decoded token over its position.

A training step is forward and backward pass and the optimizer, by rows of equal length, in float32; sizes take turns.
A line is fitted to it; the table says how far from the line a point lies. A decoded token is one step of
`fast_generate`, with its static cache, timed by its stream, at batch 1; positions from 16 to 1,024 in bins, the median
of each.

    python -m eval.experiments.pretraining.scaling --output_dir runs/scaling
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation.streamers import BaseStreamer

from eval.benchmarks.speed.models import SIZES, build
from eval.benchmarks.speed.timing import CLOCKS, Contender, interleave, now, synchronize, use_clock
from eval.experiments.common.reports import markdown_table
from hf_gpt.allocator import keeps_freed_memory
from hf_gpt.files.atomic_files import write_json, write_text
from hf_gpt.generation.decoding.fast_generate import fast_generate
from hf_gpt.reporting.environment import describe_environment
from hf_gpt.reporting.plots import light_colours, save_png
from hf_gpt.training.optim.muon_adamw import build_muon_adamw


if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIRST_POSITION, LAST_POSITION = 16, 1024
# Positions of a bin, small where there are few behind them.
BINS = (16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10m", choices=list(SIZES), help="of the model")
    parser.add_argument("--vocab_size", type=int, default=8192)
    parser.add_argument("--length", type=int, default=128, help="tokens in a row of training")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 4, 8, 16, 24, 32], help="in a step")
    parser.add_argument("--rounds", type=int, default=3, help="that count")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: seconds of computing")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/scaling"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    use_clock(options.clock)
    steps = training_seconds(options.size, options.vocab_size, options.length, options.rows, options.rounds)
    tokens = decoding_seconds(options.size, options.vocab_size, options.rounds)
    found = {"training": steps, "decoding": tokens, "environment": describe_environment()}
    write_json(options.output_dir / "scaling.json", found)
    report = table(found)
    write_text(options.output_dir / "scaling.md", report + "\n")
    plot(found, options.output_dir / "scaling.png")
    print(report)
    return 0


def training_seconds(
    size: str, vocab_size: int, length: int, rows: Sequence[int], rounds: int
) -> list[dict[str, float]]:
    """`tokens` and `seconds` of a step for each number of rows, and `line`, what a fitted line says."""
    model = build("hf_gpt", size, vocab_size, length).train()
    optimizer = build_muon_adamw(model, learning_rate=1e-4)

    def step(batch: torch.Tensor) -> list[float]:
        synchronize()
        begin = now()
        model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize()
        return [now() - begin]

    batches = [torch.randint(0, vocab_size, (count, length), device=model.device) for count in rows]
    with keeps_freed_memory():
        measured = interleave([Contender(str(b.numel()), functools.partial(step, b)) for b in batches], rounds)
    points = [{"tokens": b.numel(), "seconds": row["seconds"]} for b, row in zip(batches, measured, strict=True)]
    slope, offset = fit_line([p["tokens"] for p in points], [p["seconds"] for p in points])
    return [{**point, "line": offset + slope * point["tokens"]} for point in points]


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and offset of the line whose relative distances from `y` have the least sum of squares."""
    weights = 1 / torch.tensor(y, dtype=torch.float64)
    columns = torch.stack([torch.tensor(x, dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)], 1)
    slope, offset = torch.linalg.lstsq(columns * weights[:, None], torch.ones_like(weights)[:, None]).solution[:, 0]
    return slope.item(), offset.item()


class _Clock(BaseStreamer):
    """When each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        synchronize()
        self.times.append(now())

    def end(self) -> None:
        pass


@torch.no_grad()
def decoding_seconds(size: str, vocab_size: int, rounds: int) -> list[dict[str, float]]:
    """`first`, `last` and `seconds` of a token at the positions of each bin, for each type of weights (`weights`)."""
    model = build("hf_gpt", size, vocab_size, LAST_POSITION + 1).eval()
    prompt = torch.randint(1, vocab_size, (1, FIRST_POSITION), device=model.device)
    rows = []
    for weight_dtype in (None, "bfloat16"):
        seconds: list[list[float]] = [[] for _ in BINS[1:]]
        for turn in range(rounds + 1):
            clock = _Clock()
            count = LAST_POSITION - FIRST_POSITION + 1
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                custom_generate=functools.partial(fast_generate, streamer=clock),
                # A step for each token, or it has no time of its own.
                speculative=False,
                weight_dtype=weight_dtype,
                do_sample=False,
                min_new_tokens=count,
                max_new_tokens=count,
            )
            if turn == 0:
                continue
            # Of the token that is read at position FIRST_POSITION + n.
            steps = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
            for found, first, last in zip(seconds, BINS, BINS[1:], strict=False):
                found.append(median(steps[first - FIRST_POSITION : last - FIRST_POSITION]))
        rows += [
            {"weights": weight_dtype or "float32", "first": first, "last": last - 1, "seconds": median(found)}
            for found, first, last in zip(seconds, BINS, BINS[1:], strict=False)
        ]
    return rows


def table(found: dict[str, Any]) -> str:
    """Both measurements as tables, and a sentence on each."""
    steps = [{**row, "off": row["seconds"] / row["line"] - 1} for row in found["training"]]
    worst = max(abs(row["off"]) for row in steps)
    tokens = [{**row, "microseconds": 1e6 * row["seconds"]} for row in found["decoding"]]
    lines = [
        markdown_table(
            steps, {"tokens in a step": "tokens:,", "seconds": "seconds:.3f", "line": "line:.3f", "off": "off:+.1%"}
        ),
        f"\nA step is at most {worst:.1%} off a line over its tokens.\n",
        markdown_table(
            tokens, {"weights": "weights", "from": "first", "to": "last", "microseconds a token": "microseconds:.0f"}
        ),
    ]
    for weights in dict.fromkeys(row["weights"] for row in tokens):
        some = [row["seconds"] for row in tokens if row["weights"] == weights]
        growth = some[-1] / some[0]
        lines.append(f"\n{weights}: a token at the last positions takes {growth:.2f} times as long as at the first.")
    return "\n".join(lines)


def plot(found: dict[str, Any], path: Path) -> None:
    """Both measurements side by side."""

    def panels(left: "Axes", right: "Axes") -> None:
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

    save_png(panels, path, width=960, height=380, columns=2, label=table(found))


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
