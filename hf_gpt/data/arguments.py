"""Options: the corpus. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass
from typing import Literal

from hf_gpt.option_values import option


# Most tokens of an answer in a passage: of fine-tuning by default, and of evaluation.
MAX_ANSWER_LENGTH = 30


@dataclass
class DataArguments:
    """Which text is trained on, and how it becomes rows of tokens."""

    _argument_group_name = "data"

    train_file: list[str] = option(
        ["tinyshakespeare"], "Text: .txt, .jsonl, .csv or .parquet files, or the built-in tinyshakespeare."
    )
    streaming: bool = option(
        False,
        "Read while training, in constant memory: needs --max_steps and --validation_file. Takes Hub ids (owner/name) "
        "too. Rows are shuffled within windows of about 4096 documents.",
    )
    train_file_weights: list[float] | None = option(
        None,
        "With --streaming, share of each file in the training text; one that ends starts again. Left out: one file "
        "after the other.",
    )
    malformed_rows: Literal["stop", "skip"] = option(
        "stop", "With --streaming, what to do about an unreadable row. Skipped rows are counted."
    )
    text_column: str = option("text", "Column of a .jsonl, .csv or .parquet file that is read.")
    document_separator: str | None = option(
        None,
        r"What separates documents in a .txt file, e.g. '\n\n'. Any kind of line end matches. Left out: one file is "
        "one document.",
    )
    validation_file: list[str] | None = option(
        None, "Files to validate on. Left out: validation_fraction of train_file."
    )
    validation_fraction: float = option(
        0.1, "Share of the documents held out, sampled by seed. Of a single document, blocks are held out."
    )
    max_length: int = option(512, "Tokens in a row; also the model's context length.")
    overlong: Literal["truncate", "drop", "error"] = option(
        "truncate",
        "What to do about a document longer than a row. truncate: split it into rows. drop: leave it out. error: stop.",
    )
    packing_strategy: Literal["best_fit", "sequential"] = option(
        "best_fit", "best_fit: keep documents whole where they fit. sequential: keep their order, without gaps."
    )
    tokenizer_name: str | None = option(
        None, "Tokenizer to use: a folder or Hub id. Left out: the model's, or a new one."
    )
    tokenizer_vocab_size: int = option(
        4096, "Tokens of a new tokenizer, special ones included (byte-level BPE). None has more than 64 letters."
    )
