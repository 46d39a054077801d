"""`hf-gpt convert`: a checkpoint as another architecture that computes the same."""

import argparse
from collections.abc import Sequence

from hf_gpt.cli.command import exit_status
from hf_gpt.cli.parser import CommandParser


_TARGETS = ("hf_gpt", "gpt2", "llama", "mistral", "qwen2", "qwen3")


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt convert",
        description="Writes a checkpoint as another architecture that gives the same logits, with its tokenizer and "
        "generation config. Weights keep their values and dtypes. What the target cannot express is refused by name.",
    )
    parser.add_argument(
        "source",
        help="folder of a GPT-2, Llama, Mistral, Qwen2, Qwen3 or HfGpt checkpoint, a ckpt.pt of nanoGPT, or a Hub id",
    )
    parser.add_argument("destination", help="folder to write")
    parser.add_argument("--to", choices=_TARGETS, default="hf_gpt", help="architecture to write (%(default)s)")
    parser.add_argument("--max_shard_size", default="5GB", help="most bytes of a file of weights (%(default)s)")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--no_tokenizer", action="store_true", help="write the model alone")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint at the destination")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    return exit_status(lambda: _convert(args), stopped="Stopped. Nothing was written.")


def _convert(args: argparse.Namespace) -> None:
    from hf_gpt.conversion.checkpoint import convert

    result = convert(
        args.source,
        args.destination,
        args.to,
        max_shard_size=args.max_shard_size,
        revision=args.revision,
        tokenizer=not args.no_tokenizer,
        overwrite=args.overwrite,
    )
    files = f"{len(result.files)} files" if len(result.files) > 1 else result.files[0]
    print(
        f"{args.destination}: {result.source_type} -> {result.target_type}, {result.num_parameters:,} parameters in "
        f"{files}"
    )
    for note in result.notes:
        print(f"note: {note}")
