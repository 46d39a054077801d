"""Options: the corpus. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass, field
from typing import Literal


# Most tokens of an answer in a passage: of fine-tuning by default, and of evaluation.
MAX_ANSWER_LENGTH = 30


@dataclass
class DataArguments:
    """Which text is trained on, and how it becomes rows of tokens."""

    _argument_group_name = "data"

    corpus: list[str] = field(
        default_factory=lambda: ["tinyshakespeare"],
        metadata={"help": "Text: .txt, .jsonl, .csv or .parquet files, or the built-in tinyshakespeare."},
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read while training, in constant memory: needs --max_steps and --validation_file. Takes Hub ids "
            "(owner/name) too. Rows are shuffled within windows of about 4096 documents."
        },
    )
    corpus_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "With --streaming, share of each corpus in the text that is trained on; one that ends begins anew. "
            "Left out: one after the other."
        },
    )
    malformed_rows: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "With --streaming, what is done about a row that cannot be read; skipped ones are counted."},
    )
    text_column: str = field(
        default="text", metadata={"help": "Column of a .jsonl, .csv or .parquet file that is read."}
    )
    document_separator: str | None = field(
        default=None,
        metadata={
            "help": r"Where a .txt file parts into documents, e.g. '\n\n', whichever line ends the file has. Left out: "
            "one file, one document."
        },
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "Files to validate on. Left out: validation_fraction of the corpus."}
    )
    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": "Share of the documents held out, sampled by seed; of a single document, blocks from all over it."
        },
    )
    max_length: int = field(default=512, metadata={"help": "Tokens in a row; also the model's context length."})
    overlong: Literal["truncate", "drop", "error"] = field(
        default="truncate",
        metadata={
            "help": "What is done about a document longer than a row: truncate parts it into rows, "
            "drop leaves it out, error stops."
        },
    )
    packing_strategy: Literal["best_fit", "sequential"] = field(
        default="best_fit",
        metadata={"help": "best_fit keeps documents whole where they fit; sequential keeps their order, without gaps."},
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Tokenizer to use: a folder or Hub id. Left out: the model's, or a new one."}
    )
    tokenizer_vocab_size: int = field(
        default=4096,
        metadata={
            "help": "Tokens of a new tokenizer, special ones included (byte-level BPE). None has more than 64 letters."
        },
    )
