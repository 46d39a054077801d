"""Reading of a corpus into documents, and their split into training and validation."""

import functools
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np

from hf_gpt.data import row_files, text_files
from hf_gpt.data.arrow_cache import text_dataset
from hf_gpt.data.blocks import LEAST_CHARACTERS, split_into_blocks
from hf_gpt.data.code_version import code_version
from hf_gpt.data.row_files import Malformed, advised, read_rows, table_format, text_in
from hf_gpt.data.splits import held_out_rows, same_text
from hf_gpt.data.text_files import absent_separator, fold_line_ends, parse_separator, read_text, split_text
from hf_gpt.errors import CorpusError, did_you_mean


CORPORA = Path(__file__).with_name("corpora")

logger = logging.getLogger(__name__)


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
        document_separator: Where a text file parts into documents; it belongs to none of them. `\\n`, `\\r` and `\\t`
            may be written out. None makes the whole file one document. A warning is logged where it never occurs.

    Returns:
        A dataset with the column `text`. Blank documents are left out; line ends are `\\n`, whatever the file has.

    Raises:
        CorpusError: a file is missing, empty, not UTF-8 or not of its format, or has no such column.
    """
    separator = None if document_separator is None else parse_separator(document_separator)
    parts, texts = [], []
    for source in sources:
        path = resolve_file(source)
        if table_format(path) is not None:
            read = functools.partial(_table_texts, path, text_column)
            parts.append(text_dataset(path, read, [text_column], reader_version()))
        else:
            texts.append(read_text(path))
            parts.append(datasets.Dataset.from_dict({"text": split_text(texts[-1], separator)}))
    if separator is not None and (warning := absent_separator(separator, texts)):
        logger.warning("warning: %s", warning)
    corpus = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    if len(corpus) == 0:
        raise CorpusError(f"{', '.join(sources)}: no text found. Every document is empty or blank.")
    return corpus


def describe_split(sources: Sequence[str], document_separator: str | None) -> str:
    """How text files among the sources become documents, in brackets, as commands print it; empty for tables alone."""
    if all(table_format(resolve_file(source)) is not None for source in sources):
        return ""
    if document_separator is None:
        return " (one a file)"
    shown = parse_separator(document_separator).encode("unicode_escape").decode()
    return f" (split at '{shown}')"


def document_of(text: str) -> str:
    """A text of a table as a document, empty where it is blank."""
    return fold_line_ends(text) if text.strip() else ""


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
    if is_split_by_blocks(corpus, fraction):
        sides = split_into_blocks(list(corpus["text"]), fraction, seed)
        if sides is None:
            raise CorpusError(
                f"the corpus has {sum(map(len, corpus['text']))} characters, too few to hold out a validation part of "
                f"{fraction:.0%}. Give more text, or a --validation_file."
            )
        return tuple(datasets.Dataset.from_dict({"text": texts}) for texts in sides)
    held_out = held_out_rows(map(same_text, corpus["text"]), fraction, seed)
    return corpus.select(np.setdiff1d(np.arange(len(corpus)), held_out)), corpus.select(held_out)


def is_split_by_blocks(corpus: datasets.Dataset, fraction: float) -> bool:
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


def _table_texts(path: Path, text_column: str) -> Iterator[str]:
    """The documents of a table, blank ones left out.

    Raises:
        CorpusError: a row has no text in the column; the message names it.
    """
    if path.stat().st_size == 0:
        raise CorpusError(f"{path}: the file is empty. Give a file with text in it.")
    for where, values, _ in read_rows(path, columns={"text_column": text_column}):
        text = values if isinstance(values, Malformed) else text_in(values, text_column, where)
        if isinstance(text, Malformed):
            raise advised(text)
        if document := document_of(text):
            yield document


def reader_version() -> str:
    """Changes with the code that reads files."""
    return code_version(text_files, row_files, sys.modules[__name__])
