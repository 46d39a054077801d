"""Documents to packed rows: tokenise, pack, complete batches.

The same functions serve a `datasets.Dataset` and an `IterableDataset`: each is a batched `map`, so a stream is packed
window by window with memory for one window.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_gpt import compat
from hf_gpt.data import packing, word_encoding
from hf_gpt.data import tokenizer as own_tokenizer
from hf_gpt.data.code_version import code_version
from hf_gpt.data.packing import IGNORE_INDEX, empty_rows, pack
from hf_gpt.data.truncation import Cuts, Overlong
from hf_gpt.data.word_encoding import encode_texts
from hf_gpt.errors import ConfigError, CorpusError


AnyDataset = TypeVar("AnyDataset", datasets.Dataset, datasets.IterableDataset)

# Documents that are packed together. A window leaves at most its last rows partly empty.
PACKING_WINDOW = 4096

FEATURES = datasets.Features(
    {name: datasets.List(datasets.Value("int32")) for name in ("input_ids", "position_ids", "labels")}
)


def tokenize_documents(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[np.ndarray]:
    """Token ids of each text between its begin and end tokens, int32.

    A special token that is spelled out in a text stays text. Without a begin token, the end token begins a text too.

    Raises:
        ConfigError: the tokenizer has no end token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError(
            "the tokenizer has no end-of-text token, which parts documents. Set its eos_token, or choose another with "
            "--tokenizer_name."
        )
    begin = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return encode_texts(texts, tokenizer, around=([begin], [end]))


def tokenize_and_pack(
    documents: AnyDataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    strategy: str = "best_fit",
    desc: str | None = None,
) -> AnyDataset:
    """Rows of `max_length` tokens, as `pack` describes them, from documents in the column `text`.

    Rows of a dataset on disk are kept there by the library. They are made anew when the documents, the tokenizer as it
    is now, a setting or the code that makes them is another.

    Args:
        documents: A dataset in memory, on disk or streamed.
        tokenizer: Its padding token, or lacking one its end token, fills partly empty rows.
        max_length: Length of a row.
        strategy: `"best_fit"` or `"sequential"`.
        desc: Name in the progress bar.
    """
    function = partial(_tokenize_and_pack, tokenizer=tokenizer, max_length=max_length, strategy=strategy)
    options: dict[str, Any] = {"batched": True, "batch_size": PACKING_WINDOW, "features": FEATURES}
    if isinstance(documents, datasets.Dataset):
        options |= {"desc": desc, "new_fingerprint": _fingerprint(documents, tokenizer, max_length, strategy)}
    return documents.map(function, remove_columns=documents.column_names, **options)


def complete_batches(rows: datasets.Dataset, batch_size: int, pad_token_id: int) -> datasets.Dataset:
    """Adds rows without a target until their number is a multiple of `batch_size`.

    Every batch then has the same shape, which compilation needs, and processes that share a dataset get equal parts of
    it without counting a row twice.
    """
    missing = -len(rows) % batch_size
    if missing == 0:
        return rows
    padding = empty_rows(missing, len(rows[0]["input_ids"]), pad_token_id)
    return datasets.concatenate_datasets([rows, datasets.Dataset.from_dict(padding, features=FEATURES)])


def filler_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills a row: the padding token, or lacking one the end token."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def fitting(
    documents: Sequence[np.ndarray], max_length: int, overlong: Overlong, names: Sequence[str] | None = None
) -> list[bool]:
    """Which documents are packed, as `overlong` says: `"truncate"` parts those longer than a row into rows.

    Args:
        documents: Their token ids.
        max_length: Length of a row.
        overlong: What is done about a longer one.
        names: Of the documents, for the error; left out: their numbers.

    Raises:
        CorpusError: one is longer than a row, and that is an error.
    """
    keep = [overlong == "truncate" or len(document) <= max_length for document in documents]
    if overlong == "error" and not all(keep):
        first = keep.index(False)
        name = f"document {first + 1:,}" if names is None else names[first]
        raise CorpusError(
            f"{name} has {len(documents[first]):,} tokens, more than --max_length {max_length}. Part it, raise "
            "--max_length, or choose --overlong truncate or drop."
        )
    return keep


def keep_fitting(
    texts: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, overlong: Overlong, cuts: Cuts
) -> datasets.Dataset:
    """The texts that are trained on, as `overlong` says; those that are left out are counted.

    Raises:
        CorpusError: as for `fitting`.
    """
    cuts.total += len(texts)
    if overlong == "truncate":
        return texts
    kept: list[int] = []
    unit = cuts.unit.removesuffix("s")
    for start in range(0, len(texts), PACKING_WINDOW):
        window = texts[start : start + PACKING_WINDOW]["text"]
        names = [f"{unit} {start + number:,} of the text" for number in range(1, len(window) + 1)]
        keep = fitting(tokenize_documents(list(window), tokenizer), max_length, overlong, names)
        kept += [start + number for number, is_kept in enumerate(keep) if is_kept]
    cuts.add("dropped", len(texts) - len(kept))
    return texts.select(kept)


def count_parted(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, cuts: Cuts) -> None:
    """Counts, in packed rows, the documents that were parted into several.

    Args:
        rows: As `tokenize_and_pack` gives them.
        tokenizer: Which begins and ends them.
        cuts: To which the counts are added.
    """
    end = tokenizer.eos_token_id
    begin = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    parted = 0
    for batch in rows.with_format("numpy").iter(batch_size=1000):
        ids, labels = (np.stack(list(batch[name])) for name in ("input_ids", "labels"))
        # A segment goes on while tokens are predicted; a new one begins at a place without a label before one with.
        inside = labels != IGNORE_INDEX
        starts = np.flatnonzero(~inside[:, :-1] & inside[:, 1:])
        lines, positions = np.divmod(starts, labels.shape[1] - 1)
        is_first = ids[lines, positions] == begin
        after = np.concatenate([~inside, np.ones((len(inside), 1), bool)], axis=1)
        stops = np.flatnonzero(inside & after[:, 1:])
        last = ids.reshape(-1)[stops]
        parted += int((is_first & (last != end)).sum())
    cuts.add("documents_parted", parted)


def _tokenize_and_pack(
    batch: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase, max_length: int, strategy: str
) -> dict[str, Any]:
    documents = tokenize_documents(batch["text"], tokenizer)
    return pack(documents, max_length, pad_token_id=filler_token_id(tokenizer), strategy=strategy)


def tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that token ids depend on: what the tokenizer would be saved as, and what was changed since it was loaded."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    added = {number: repr(token) for number, token in tokenizer.added_tokens_decoder.items()}
    state = [
        type(tokenizer).__qualname__,
        sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str(),
        sorted(added.items()),
        repr(tokenizer.special_tokens_map),
        [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
        repr(getattr(tokenizer, "chat_template", None)),
        sorted((name, repr(value)) for name, value in tokenizer.init_kwargs.items()),
    ]
    return json.dumps(state)


def _fingerprint(
    documents: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, strategy: str
) -> str:
    """Names the rows that `tokenize_and_pack` makes."""
    code = code_version(packing, word_encoding, own_tokenizer, sys.modules[__name__])
    rows = compat.data_fingerprint(documents)
    facts = [rows, tokenizer_state(tokenizer), max_length, strategy, code, version("tokenizers")]
    return hashlib.blake2b(repr(facts).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
