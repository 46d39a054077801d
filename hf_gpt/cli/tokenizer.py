"""`hf-gpt tokenizer`: trains a byte-level BPE tokenizer from files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_gpt.cli.command import add_text_options, describe_texts, exit_status
from hf_gpt.cli.parser import CommandParser


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt tokenizer",
        description="Trains a byte-level BPE tokenizer, which AutoTokenizer.from_pretrained opens. Runs of more than "
        "64 letters, marks or blanks are cut, so text without spaces takes time in proportion to its length.",
    )
    parser.add_argument(
        "--train_file",
        nargs="+",
        required=True,
        metavar="FILE",
        help=".txt, .jsonl, .csv or .parquet files, or the built-in tinyshakespeare",
    )
    parser.add_argument("--output_dir", required=True, help="folder that the tokenizer is saved in")
    parser.add_argument("--vocab_size", type=int, default=4096, help="most tokens, special ones included (%(default)s)")
    add_text_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a tokenizer that is there already")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    return exit_status(lambda: train(args), stopped="Stopped. A tokenizer is written whole or not at all.")


def train(args: argparse.Namespace) -> None:
    """Trains and saves the tokenizer, and prints its size and how well it compresses."""
    from hf_gpt.data.corpus import count_bytes, read_corpus
    from hf_gpt.data.tokenizer import train_tokenizer
    from hf_gpt.errors import CheckpointError
    from hf_gpt.files.checkpoints import atomic_directory
    from hf_gpt.terminal import hide_bars
    from hf_gpt.training.run import print_lines

    output_dir = Path(args.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise CheckpointError(f"--output_dir {output_dir} is a file. Name a folder.")
    if output_dir.exists() and any(output_dir.iterdir()):
        is_tokenizer = (output_dir / "tokenizer.json").is_file() and not (output_dir / "config.json").exists()
        if not (args.overwrite and is_tokenizer):
            remedy = "replace it with --overwrite" if is_tokenizer else "choose another folder"
            raise CheckpointError(f"--output_dir {output_dir} is not empty: {remedy}.")
    hide_bars()
    texts = read_corpus(args.train_file, text_column=args.text_column, document_separator=args.document_separator)
    print_lines(print, [describe_texts(len(texts), args)])
    tokenizer = train_tokenizer((text for text in texts["text"]), args.vocab_size, show_progress=sys.stderr.isatty())
    with atomic_directory(output_dir) as folder:
        tokenizer.save_pretrained(folder)
    num_bytes, num_tokens = count_bytes(texts), sum(len(tokenizer(text)["input_ids"]) for text in texts["text"])
    size = f"{len(tokenizer):,} tokens, {num_bytes / max(num_tokens, 1):.2f} bytes each"
    print_lines(print, [("tokenizer", f"{output_dir}: {size}")])
