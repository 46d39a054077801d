"""How fast, against peers and against the machine's own limits, all in one run."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.experiments.common.command import start
from eval.experiments.common.reports import markdown_table
from hf_gpt.cli.parser import CommandParser


BENCHMARKS = ("train", "decode", "positions", "rollout", "adversarial", "loss", "data")
_DESCRIPTION = """Times our code and its peers in turns: medians, ratios with their spread, and the share of what the
machine can do.

  train        optimizer steps, against GPT-2 and Llama in transformers' Trainer
  decode       the likeliest token each time, against generate of GPT-2 and Llama
  positions    the same for one long text, time by position
  rollout      samples with log-probabilities, against generate(output_scores=True)
  adversarial  a rollout, its judgement and both updates, against TRL's GRPOTrainer where TRL is installed
  loss         the loss in chunks, against full logits: time and memory
  data         reading, tokenising and packing, against the library's tokenizers
"""


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="python -m eval.benchmarks.speed",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benchmarks", nargs="+", choices=[*BENCHMARKS, "all"], metavar="NAME", help="see above; or all")
    parser.add_argument("--size", default="10m", choices=["tiny", "1m", "10m", "124m"], help="of models (%(default)s)")
    parser.add_argument("--vocab_size", type=int, default=8192, help="tokens in the vocabulary (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (%(default)s)")
    parser.add_argument(
        "--no_warmup", action="store_true", help="count the first round too, where a round has warm-up steps of its own"
    )
    parser.add_argument(
        "--peers", nargs="+", default=["GPT-2", "Llama"], choices=["GPT-2", "Llama"], help="train: of ours (both)"
    )
    parser.add_argument("--steps", type=int, default=3, help="train, adversarial: steps in a round (%(default)s)")
    parser.add_argument("--length", type=int, default=512, help="train: tokens in a row (%(default)s)")
    parser.add_argument("--rows", type=int, help="rows at once; left out: 16 in train, 1 in positions, 64 elsewhere")
    parser.add_argument(
        "--gradient_accumulation_steps", type=int, default=1, help="train: batches of --rows in a step (%(default)s)"
    )
    parser.add_argument("--new_tokens", type=int, default=64, help="tokens of a text (%(default)s)")
    parser.add_argument("--text_length", type=int, default=1024, help="positions: tokens of a text (%(default)s)")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"], help="decode: of weights"
    )
    parser.add_argument("--compile", action="store_true", help="train: with compiled contenders (a minute more each)")
    parser.add_argument("--loss_tokens", type=int, default=4096, help="loss: tokens (%(default)s)")
    parser.add_argument(
        "--loss_vocab_size", type=int, default=50257, help="loss: tokens in the vocabulary (%(default)s)"
    )
    parser.add_argument("--megabytes", type=float, default=20, help="data: size of the text (%(default)s)")
    parser.add_argument("--text", type=Path, help="data: a file of natural text in place of Tiny Shakespeare")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: seconds of computing, on a machine that others use too, with one thread; not for loss (%(default)s)",
    )
    parser.add_argument("--output_dir", type=Path, help="folder for bench.json and bench.md; left out: neither")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    counts = (args.rounds, args.steps, args.length, args.new_tokens, args.rows or 1, args.gradient_accumulation_steps)
    if min(counts) < 1 or args.vocab_size < 300:
        print("error: numbers must be at least 1, and --vocab_size at least 300.", file=sys.stderr)
        return 2
    if not 48 <= args.text_length <= 1024:
        print("error: --text_length must be 48 to 1024.", file=sys.stderr)
        return 2
    if args.text is not None and not args.text.is_file():
        print(f"error: --text: there is no file {args.text}", file=sys.stderr)
        return 2
    return bench(args)


def bench(args: argparse.Namespace) -> int:
    """Runs the benchmarks, prints their tables and writes the files, after each one so that none is lost."""
    from eval.benchmarks.speed.machine import limits
    from eval.benchmarks.speed.timing import interleave, use_clock
    from hf_gpt.files.atomic_files import write_json, write_text
    from hf_gpt.reporting.environment import describe_environment

    use_clock(args.clock)
    names = BENCHMARKS if "all" in args.benchmarks else args.benchmarks
    result: dict[str, Any] = {"environment": describe_environment(), "limits": limits(), "benchmarks": {}}
    pages = [_limits_line(result["limits"])]
    print(pages[0])
    for name in dict.fromkeys(names):
        for title, contenders in _races(name, args):
            rows = interleave(contenders, args.rounds, title, warms_up=not args.no_warmup)
            _add_shares(rows, title, result["limits"])
            result["benchmarks"][title] = rows
            pages.append(f"## {title}\n\n{table(rows)}")
            print(f"\n{pages[-1]}", flush=True)
            if args.output_dir is not None:
                write_json(args.output_dir / "bench.json", result)
                write_text(args.output_dir / "bench.md", "\n\n".join(pages) + "\n")
    return 0


def _races(name: str, args: argparse.Namespace) -> Iterator[tuple[str, list[Any]]]:
    """Titles of a benchmark, with the contenders of each."""
    import torch

    from eval.benchmarks.speed import adversarial, data, decode, loss, positions, train

    rows = args.rows or 64
    models = f"{args.size}, vocabulary {args.vocab_size:,}"
    sizes = (args.size, args.vocab_size)
    if name == "train":
        in_step = args.rows or 16
        accumulation = args.gradient_accumulation_steps
        shape = f"{in_step} x {args.length} tokens" + (f" x {accumulation} batches" if accumulation > 1 else "")
        found = train.contenders(
            *sizes,
            length=args.length,
            rows=in_step,
            steps=args.steps,
            peers=args.peers,
            compile=args.compile,
            accumulation=accumulation,
        )
        yield f"train: {models}, {shape}", found
    elif name == "decode":
        for size in [args.rows] if args.rows else [1, 64]:
            for dtype in args.dtypes:
                settings = {"rows": size, "new_tokens": args.new_tokens, "dtype": getattr(torch, dtype)}
                yield f"decode: {models}, batch {size}, {dtype}", decode.greedy(*sizes, **settings)
    elif name == "positions":
        found = positions.contenders(*sizes, rows=args.rows or 1, length=args.text_length)
        yield f"positions: {models}, batch {args.rows or 1}, float32", found
    elif name == "loss":
        title = f"loss: {args.loss_tokens:,} tokens x {args.loss_vocab_size:,}, width {loss.HIDDEN_SIZE}"
        yield title, loss.contenders(tokens=args.loss_tokens, vocab_size=args.loss_vocab_size)
    elif name == "data":
        title = f"data: {args.megabytes:g} MB of text, seconds of processor time"
        yield title, data.contenders(args.megabytes, args.text)
    elif name == "rollout":
        found = decode.sampling(*sizes, rows=rows, new_tokens=args.new_tokens)
        yield f"rollout: {models}, {rows} x {args.new_tokens} tokens", found
    elif name == "adversarial":
        found = adversarial.contenders(*sizes, rows=rows, new_tokens=args.new_tokens, steps=args.steps)
        yield f"adversarial: {models}, {rows} x {args.new_tokens} tokens", found


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows as a Markdown table; columns that no row fills are left out."""
    shown = [dict(row) for row in rows]
    for row in shown:
        row |= {f"ms{position}": value for position, value in row.get("milliseconds", {}).items()}
        if "parameters" in row:
            row["parameters"] = f"{row['parameters'] / 1e6:.1f} M"
        if "ratio" in row:
            row["times"] = f"{row['ratio']:.2f} x ({row['ratio_least']:.2f} to {row['ratio_most']:.2f})"
        if "peak_bytes" in row:
            row["memory"] = f"{row['peak_bytes'] / 2**20:,.0f} MiB"
    columns = {
        "": "name",
        "parameters": "parameters",
        "seconds": "seconds:.3g",
        "tokens/s": "per_second:,.0f",
        "time, ours = 1 (least to most)": "times",
        **{f"ms at {position:,}": f"ms{position}:.3g" for position in (16, 256, 512, 1008)},
        "peak memory": "memory",
        "MFU": "mfu:.0%",
        "of memory bandwidth": "bandwidth_share:.0%",
        "first round, s": "cold_seconds:.1f",
    }
    filled = {name for row in shown for name in row}
    return markdown_table(shown, {key: name for key, name in columns.items() if name.partition(":")[0] in filled})


def _add_shares(rows: list[dict[str, Any]], title: str, limits: dict[str, float]) -> None:
    """What a row reached of the machine's FLOPs and memory bandwidth."""
    for row in rows:
        if "flops" in row:
            dtype = "bfloat16" if "bf16" in row["name"] else "float32"
            row["mfu"] = row.pop("flops") / row["seconds"] / limits[f"flops_{dtype}"]
        if "bytes_read" in row:
            bytes_read = row.pop("bytes_read")
            # In a batch the products, not the weights' way from memory, take the time.
            if "batch 1," in title:
                row["bandwidth_share"] = bytes_read / row["seconds"] / limits["bytes_per_second"]


def _limits_line(limits: dict[str, float]) -> str:
    single, half = (limits[f"flops_{dtype}"] / 1e9 for dtype in ("float32", "bfloat16"))
    memory = limits["bytes_per_second"] / 1e9
    return (
        f"This machine: {single:,.0f} GFLOP/s in float32, {half:,.0f} in bfloat16, {memory:.1f} GB/s read from memory"
    )


if __name__ == "__main__":
    start(main)
