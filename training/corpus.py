"""Reading of a corpus into documents, and their split into training and validation."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np

from hf_gpt.training.blocks import LEAST_CHARACTERS, split_into_blocks
from hf_gpt.training.errors import CorpusError, did_you_mean
from hf_gpt.training.held_out import held_out_rows, same_text


CORPORA = Path(__file__).with_name("corpora")
_TABLE_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def built_in_corpora() -> list[str]:
    """Names that stand for a corpus that ships with the package."""
    return sorted(path.stem for path in CORPORA.glob("*.txt"))


def read_corpus(
    sources: Sequence[str], *, text_column: str = "text", document_separator: str | None = None
) -> datasets.Dataset:
    """Reads files into documents.

    Args:
        sources: Paths, or names of built-in corpora. `.jsonl`, `.json`, `.csv` and `.parquet` files have a document in
            each row; every other file is UTF-8 text. All but parquet may be packed, ending in `.gz` as well.
        text_column: The column of a table that holds the text.
        document_separator: Where a text file parts into documents; it belongs to none of them. `\\n` and `\\t` may be
            written out. None makes the whole file one document.

    Returns:
        A dataset with the column `text`. Empty documents are left out.

    Raises:
        CorpusError: a file is missing, empty, not UTF-8 or not of its format, or has no such column.
    """
    parts = []
    for source in sources:
        path = resolve_file(source)
        if _suffix(path) in _TABLE_BUILDERS:
            parts.append(_read_table(path, text_column))
        else:
            parts.append(datasets.Dataset.from_dict({"text": read_text_documents(path, document_separator)}))
    corpus = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    if len(corpus) == 0:
        raise CorpusError(f"{', '.join(sources)}: no text found. Every document is empty or blank.")
    return corpus


def read_text_documents(path: Path, document_separator: str | None = None) -> list[str]:
    """The documents of a UTF-8 text file, byte for byte.

    Raises:
        CorpusError: the file is empty or not UTF-8; the message names the byte where it fails.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path}: cannot be unpacked: {error}. Check that the file is whole.") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: not UTF-8, byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason}). Convert it, "
            f"for example: iconv -f {_likely_encoding(data)} -t UTF-8 {path.name} > {path.stem}.utf8{path.suffix}"
        ) from None
    if not text.strip():
        raise CorpusError(f"{path}: the file is {'empty' if not data else 'blank'}. Give a file with text in it.")
    if document_separator is None:
        return [text]
    return [part for part in text.split(parse_separator(document_separator)) if part.strip()]


def parse_separator(document_separator: str) -> str:
    """The separator, with `\\n` and `\\t` that are written out turned into what they stand for.

    Raises:
        CorpusError: it is empty.
    """
    separator = document_separator.replace("\\n", "\n").replace("\\t", "\t")
    if not separator:
        raise CorpusError("--document_separator must not be empty. Leave it out to keep each file whole.")
    return separator


def split_corpus(corpus: datasets.Dataset, fraction: float, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Splits off a validation set, the same one for the same corpus and seed.

    Args:
        corpus: Documents in the column `text`.
        fraction: Share held out, above 0 and below 1. Of several documents that share of them, sampled by `seed`, with
            copies of a document on one side. Of a single document, or of long ones too few to hold one out, blocks from
            all over the text, so that what is held out is of the same kind as the rest: see `split_into_blocks`.
        seed: Seed of the sampling.

    Returns:
        Training and validation documents, each in their first order.

    Raises:
        CorpusError: the fraction is out of range, or there is too little text to split.
    """
    if not 0 < fraction < 1:
        raise CorpusError(f"--validation_fraction must be above 0 and below 1, got {fraction}.")
    if _is_split_by_blocks(corpus, fraction):
        sides = split_into_blocks(list(corpus["text"]), fraction, seed)
        if sides is None:
            raise CorpusError(
                f"the corpus has {sum(map(len, corpus['text']))} characters, too few to hold out a validation part of "
                f"{fraction:.0%}. Give more text, or a --validation_file."
            )
        return tuple(datasets.Dataset.from_dict({"text": texts}) for texts in sides)
    held_out = held_out_rows(map(same_text, corpus["text"]), fraction, seed)
    return corpus.select(np.setdiff1d(np.arange(len(corpus)), held_out)), corpus.select(held_out)


def _is_split_by_blocks(corpus: datasets.Dataset, fraction: float) -> bool:
    """Whether documents are too few to hold one out: a book of two would be another book than the rest."""
    if len(corpus) == 1:
        return True
    share = min(fraction, 1 - fraction)
    return len(corpus) * share < 1 and sum(map(len, corpus["text"])) * share >= 4 * LEAST_CHARACTERS


def count_bytes(documents: datasets.Dataset) -> int:
    """Number of UTF-8 bytes in the column `text`."""
    return sum(len(text.encode("utf-8")) for text in documents["text"])


def resolve_file(source: str) -> Path:
    """The file that a path or the name of a built-in corpus stands for.

    Raises:
        CorpusError: there is none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        raise CorpusError(f"{source} is a folder. Name its files, for example {source.rstrip('/')}/*.txt")
    if not path.is_file() and source in built_in_corpora():
        return CORPORA / f"{source}.txt"
    if not path.is_file():
        hint = did_you_mean(source, built_in_corpora())
        raise CorpusError(f"no such file: {source}{hint} Built in: {', '.join(built_in_corpora())}.")
    return path


def _read_table(path: Path, text_column: str) -> datasets.Dataset:
    if path.stat().st_size == 0:
        raise CorpusError(f"{path}: the file is empty. Give a file with text in it.")
    kind = _TABLE_BUILDERS[_suffix(path)]
    # Else a text such as None or NA is taken for none.
    options = {"keep_default_na": False} if kind == "csv" else {}
    try:
        table = datasets.load_dataset(kind, data_files=str(path), split="train", **options)
    except Exception as error:
        raise CorpusError(f"{path}: cannot be read as {_suffix(path)[1:]}: {_first_fault(path, error)}") from error
    if text_column not in table.column_names:
        hint = did_you_mean(text_column, table.column_names)
        raise CorpusError(
            f"{path}: no column {text_column!r}{hint} Choose with --text_column among {', '.join(table.column_names)}."
        )
    if table.features[text_column].dtype not in ("string", "large_string"):
        raise CorpusError(
            f"{path}: column {text_column!r} holds {table.features[text_column].dtype}, not text. Choose another with "
            "--text_column."
        )
    table = table.select_columns([text_column])
    if text_column != "text":
        table = table.rename_column(text_column, "text")
    return table.filter(lambda batch: [bool(text and text.strip()) for text in batch["text"]], batched=True)


def _first_fault(path: Path, error: Exception) -> str:
    """The line of a .jsonl file that is wrong; for other formats what the reader said."""
    if _suffix(path) == ".jsonl":
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    json.loads(line.decode("utf-8") or "null")
                except (UnicodeDecodeError, json.JSONDecodeError) as fault:
                    return f"line {number}: {fault}. Mend or remove the line."
    cause = error.__cause__ or error
    return f"{cause}. Check the file's format."


def _suffix(path: Path) -> str:
    """The ending that tells the format: of a packed file the one before .gz."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def _likely_encoding(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    return "WINDOWS-1252"
