"""Texts of a large file, in Arrow on disk under a name that changes with the file and with the code that reads it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets
from datasets.arrow_writer import ArrowWriter

from hf_gpt.errors import CorpusError
from hf_gpt.files.atomic_files import replaces_file


# Files up to this size are read into memory each time, which takes seconds.
MOST_BYTES_IN_MEMORY = 2**26
_FEATURES = datasets.Features({"text": datasets.Value("string")})


def text_dataset(
    path: Path, read: Callable[[], Iterator[str]], options: Sequence[str], version: str
) -> datasets.Dataset:
    """A dataset with the column `text` of what is read of a file: in memory, or of a large file on disk.

    Args:
        path: The file.
        read: Gives its texts.
        options: What else they depend on.

    Raises:
        CorpusError: what `read` raises, or there is no room on disk.
    """
    if path.stat().st_size <= MOST_BYTES_IN_MEMORY:
        return datasets.Dataset.from_dict({"text": list(read())}, features=_FEATURES)
    digest = hashlib.blake2b(repr([str(path.suffixes), *options, version]).encode(), digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(2**24):
            digest.update(chunk)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_gpt_texts"
    kept = folder / f"{digest.hexdigest()}.arrow"
    if not kept.is_file():
        _write(read, kept)
    return datasets.Dataset.from_file(str(kept))


def _write(read: Callable[[], Iterator[str]], kept: Path) -> None:
    """Writes the texts beside `kept` and renames, so that a run that is stopped leaves no half of them."""
    try:
        with replaces_file(kept) as draft, ArrowWriter(path=str(draft), features=_FEATURES) as writer:
            for text in read():
                writer.write({"text": text})
            writer.finalize()
    except OSError as error:
        raise CorpusError(
            f"{kept.parent}: cannot be written to: {error}. Set HF_DATASETS_CACHE to another folder."
        ) from error
