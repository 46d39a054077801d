"""`hf-gpt tokenizer`: trains a byte-level BPE tokenizer from files."""

import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from hf_gpt.cli.command import REQUIRED, TextOptions, command, describe_texts, option


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions(TextOptions):
    """The options of the command."""

    train_file: list[str] = option(REQUIRED, ".txt, .jsonl, .csv or .parquet files, or the built-in tinyshakespeare")
    output_dir: Path = option(REQUIRED, "folder that the tokenizer is saved in")
    vocab_size: int = option(4096, "most tokens, special ones included")
    overwrite: bool = option(False, "replace a tokenizer that is there already")


def train(args: TokenizerOptions) -> None:
    """Trains and saves the tokenizer, and prints its size and how well it compresses."""
    from hf_gpt.cli.next_step import print_next
    from hf_gpt.data.corpus import count_bytes, read_corpus
    from hf_gpt.data.tokenizer import train_tokenizer
    from hf_gpt.errors import CheckpointError
    from hf_gpt.files.checkpoints import atomic_directory
    from hf_gpt.installation import as_typed
    from hf_gpt.terminal import hide_bars
    from hf_gpt.training.run import print_lines

    output_dir = args.output_dir
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
    files = " ".join(map(quote, args.train_file))
    form = "" if args.text_column == "text" else f" --text_column {quote(args.text_column)}"
    form += "" if args.document_separator is None else f" --document_separator {quote(args.document_separator)}"
    print_next(as_typed(f"hf-gpt pretrain --train_file {files}{form} --tokenizer_name {quote(str(output_dir))}"))


make_parser, main = command(
    "hf-gpt tokenizer",
    "Trains a byte-level BPE tokenizer, which AutoTokenizer.from_pretrained opens. Runs of more than 64 letters, marks "
    "or blanks are cut, so text without spaces takes time in proportion to its length.",
    TokenizerOptions,
    train,
    examples=["--train_file book.txt --output_dir my-tokenizer"],
    stopped="Stopped. A tokenizer is written whole or not at all.",
)
