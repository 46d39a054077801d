"""Token ids of many texts, in which a word that occurs often is encoded once.

The pattern of `train_tokenizer` never lets a token reach over two kinds of places: before a space that a character
other than white space follows, and between a line end and such a character; nor does what stands before such a place
depend on what follows. So texts are cut there, and each part is encoded once, to the same ids. A tokenizer spends most
of its time on cutting and looking up, not on merges.
"""

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_gpt.training.tokenizer import SPLIT_PATTERN


# Python's white space holds all that the pattern takes for it.
_CUT = re.compile(r"(?= \S)|(?<=\n)(?=\S)")
_SPLIT = {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}, "behavior": "Isolated", "invert": False}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
# Parts that are encoded as one text: the call for a text costs as much as some words.
_PARTS_TOGETHER = 2000
_BEGINS_AT_CUT = re.compile(r" ?\S")
# What is put where two parts would not be cut. It begins and ends with a cut.
_GLUE = " x\n"


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each text, without special tokens; one that is spelled out in a text stays text."""
    if not knows_where_to_cut(tokenizer):
        return list(_encode(texts, tokenizer)["input_ids"])
    words = [_CUT.split(text) for text in texts]
    ids = _encode_parts(list(dict.fromkeys(itertools.chain.from_iterable(words))), tokenizer)
    return [list(itertools.chain.from_iterable(map(ids.__getitem__, parts))) for parts in words]


def knows_where_to_cut(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer cuts texts as those of `train_tokenizer` do."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is not None or backend.pre_tokenizer is None:
        return False
    # Added tokens that are not special are found before a text is cut, and may hold spaces.
    if not all(token.special for token in tokenizer.added_tokens_decoder.values()):
        return False
    steps = json.loads(backend.pre_tokenizer.__getstate__()).get("pretokenizers", ())
    return len(steps) == 2 and steps[0] == _SPLIT and _BYTE_LEVEL.items() <= steps[1].items()


def _encode_parts(parts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """The token ids of each part."""
    # White space at the beginning of a text, and texts without anything else.
    alone = [part for part in parts if _BEGINS_AT_CUT.match(part) is None]
    ids = dict(zip(alone, _encode(alone, tokenizer)["input_ids"], strict=True)) if alone else {}
    others = [part for part in parts if part not in ids]
    groups = [others[first : first + _PARTS_TOGETHER] for first in range(0, len(others), _PARTS_TOGETHER)]
    if not groups:
        return ids
    texts, spans = zip(*map(_join, groups), strict=True)
    encoded = _encode(texts, tokenizer, return_offsets_mapping=True)
    for group, span, tokens, offsets in zip(
        groups, spans, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        # A token belongs to the part in which it begins.
        begins = np.fromiter((begin for begin, _ in offsets), np.int64, len(offsets))
        first, last = np.searchsorted(begins, span).tolist()
        ids.update(zip(group, map(tokens.__getitem__, map(slice, first, last)), strict=True))
    return ids


def _join(parts: Sequence[str]) -> tuple[str, np.ndarray]:
    """Parts as one text with a cut at both ends of each, and where in it each begins and ends, of shape (2, parts)."""
    pieces: list[str] = []
    for part in parts:
        pieces += ("" if part[0] == " " or not pieces or pieces[-1][-1] == "\n" else _GLUE, part)
    ends = np.cumsum([len(piece) for piece in pieces]).reshape(-1, 2)
    return "".join(pieces), ends.T


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, **options: Any) -> Any:
    return tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
        **options,
    )
