"""Options: real texts. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass

from hf_gpt.option_values import option


@dataclass
class TextArguments:
    """Real texts that a generator is to write like: whole texts, or completions of prompts."""

    _argument_group_name = "texts"

    train_file: list[str] = option(
        ["tinyshakespeare"], "Files with real texts (.txt, .jsonl, .csv, .parquet), or names of built-in ones."
    )
    text_column: str = option("text", "Column of a table that holds a text.")
    document_separator: str | None = option(
        None, r"What separates documents in a .txt file, e.g. '\n\n'. Left out: one file is one document."
    )
    prompt_tokens: int | None = option(
        None,
        "Tokens of real text that a generated one starts with; texts are then windows of the documents. 0: whole "
        "documents. Left out: 0, or 16 with fewer than 200 documents. Not with prompt_column.",
    )
    prompt_column: str | None = option(None, "Column of a table that holds a prompt. Left out: texts without prompts.")
    completion_column: str = option("completion", "Column of the real completion, with --prompt_column.")
    validation_file: list[str] | None = option(
        None, "Held-out texts of the same form. Left out: validation_fraction of the others."
    )
    validation_fraction: float = option(0.1, "Share of the texts held out, chosen by seed.")
    max_train_samples: int | None = option(None, "Train on the first this many texts.")
    tokenizer_name: str | None = option(
        None, "Tokenizer to use: a folder or Hub id. Left out: the model's, or a new one."
    )
    tokenizer_vocab_size: int = option(
        1024, "Tokens of a new tokenizer, special ones included (byte-level BPE). None has more than 64 letters."
    )
