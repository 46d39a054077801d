"""Token ids of many texts, in which a word that occurs often is encoded once.

The pattern of `train_tokenizer` lets no token reach over certain boundaries. What stands before one does not depend on
what follows: before a space that a character other than white space follows, between a line end and such a
character, and between an ASCII letter or digit and another kind of ASCII character. So texts are cut there, and each
part is encoded once, to the same ids. A tokenizer spends most of its time on cutting and looking up, not on merges.

Texts are cut twice: at spaces, which takes next to no time, then each distinct part at all boundaries.
"""

import collections
import hashlib
import itertools
import json
import re
import weakref
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.tokenizer import SPLIT_PATTERN, TWO_DIGIT_PATTERNS


# Python's white space holds all that the pattern takes for it.
_SPACE_IN_WHITE_SPACE, _LINE = re.compile(r" (?!\S)"), re.compile(r"\n(?=\S)")
_CUT = re.compile(r"(?= )|(?<=[A-Za-z])(?=[\x00-@\[-`{-\x7f])|(?<=[0-9])(?=[\x00-/:-\x7f])")
# Where the texts do not hold them, these stand for the start of a text or a line and for a space that is no cut.
_MARKS = [chr(code) for code in (*range(9), *range(14, 28))]
_SPLITS = [
    {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    for pattern in (SPLIT_PATTERN, *TWO_DIGIT_PATTERNS)
]
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
# Parts in a text to encode.
_PARTS_TOGETHER = 100
# Parts whose ids are kept for the texts to follow, up to those of as many texts as are encoded together.
_MOST_KNOWN = 2**17
# Characters of texts that are encoded together, which memory grows with.
_CHARACTERS_TOGETHER = 2**22


class _Ids(NamedTuple):
    """Token ids of several parts, one after the other: `flat`, of which part i has `counts[i]`."""

    flat: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Sequence[int]]) -> "_Ids":
        """Those of lists."""
        counts = np.fromiter(map(len, parts), np.int64, len(parts))
        return cls(np.fromiter(itertools.chain.from_iterable(parts), np.int32, counts.sum()), counts)

    def take(self, parts: np.ndarray) -> "_Ids":
        """Those of parts by their numbers."""
        starts, counts = (self.counts.cumsum() - self.counts)[parts], self.counts[parts]
        positions = np.arange(counts.sum()) + (starts - (counts.cumsum() - counts)).repeat(counts)
        return _Ids(self.flat[positions], counts)

    def join(self, begins: np.ndarray) -> "_Ids":
        """The parts joined to fewer, which begin at these of them."""
        return _Ids(self.flat, np.add.reduceat(self.counts, begins))


def encode_texts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, around: tuple[Sequence[int], Sequence[int]] = ((), ())
) -> list[np.ndarray]:
    """Token ids of each text, int32, between those of `around`.

    No special token is added, and one that is spelled out in a text stays text.
    """
    before, after = (np.array(ids, dtype=np.int32) for ids in around)
    found = []
    for together in _blocks(texts):
        ids = _encode_together(together, tokenizer) or _encode_alone(together, tokenizer)
        counts = ids.counts + len(before) + len(after)
        ends = counts.cumsum()
        flat = np.empty(ends[-1], dtype=np.int32)
        shifts = len(before) * np.arange(1, len(ends) + 1) + len(after) * np.arange(len(ends))
        flat[np.arange(len(ids.flat)) + shifts.repeat(ids.counts)] = ids.flat
        flat[(ends - counts)[:, None] + np.arange(len(before))] = before
        flat[ends[:, None] + np.arange(-len(after), 0)] = after
        found += [flat[begin:end] for begin, end in zip((ends - counts).tolist(), ends.tolist(), strict=True)]
    return found


def knows_where_to_cut(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer cuts texts as those of `train_tokenizer` do."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is not None or backend.pre_tokenizer is None:
        return False
    # Added tokens that are not special are found before a text is cut, and may hold spaces.
    if not all(token.special for token in tokenizer.added_tokens_decoder.values()):
        return False
    # Merges that are left out by chance give a word other tokens each time.
    if getattr(backend.model, "dropout", None):
        return False
    steps = json.loads(backend.pre_tokenizer.__getstate__()).get("pretokenizers", ())
    return len(steps) == 2 and steps[0] in _SPLITS and _BYTE_LEVEL.items() <= steps[1].items()


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= _CHARACTERS_TOGETHER:
            yield block
            block, size = [], 0
    if block:
        yield block


def _encode_together(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> _Ids | None:
    """The ids of each text by those of its parts; None where that cannot be."""
    whole = " ".join(texts)
    marks = [mark for mark in _MARKS if mark not in whole]
    if len(marks) < 3 or not knows_where_to_cut(tokenizer):
        return None
    begin, line, space = marks[:3]
    whole = begin + f" {begin}".join(texts)
    # A space that is no cut turns into a mark, which is no white space: lines are looked for before.
    words, numbers = _numbered(_SPACE_IN_WHITE_SPACE.sub(space, _LINE.sub(f"\n {line}", whole)).split(" "))
    # Each with the space before it, which the first of a text or a line does not have.
    parts, part_numbers = _numbered(_CUT.split(" " + " ".join(words))[1:])
    spelled = [part.removeprefix(f" {begin}").removeprefix(f" {line}").replace(space, " ") for part in parts]
    of_words = _known_parts(tokenizer).encode(spelled).take(part_numbers)
    begins_word = np.fromiter((part[:1] == " " for part in parts), bool, len(parts))
    of_words = of_words.join(begins_word[part_numbers].nonzero()[0])
    begins_text = np.fromiter((word[:1] == begin for word in words), bool, len(words))
    return of_words.take(numbers).join(begins_text[numbers].nonzero()[0])


def _numbered(parts: list[str]) -> tuple[list[str], np.ndarray]:
    """The different ones, and the number of each of all among them."""
    numbers = collections.defaultdict(itertools.count().__next__)
    every = np.fromiter(map(numbers.__getitem__, parts), np.int64, len(parts))
    return list(numbers), every


class _KnownParts:
    """The ids of parts that were met, which are those that come again in the texts to follow.

    Args:
        tokenizer: What encodes parts that are new.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = weakref.ref(tokenizer)
        self._numbers: dict[str, int] = {}
        self._ids = _Ids(np.empty(0, np.int32), np.empty(0, np.int64))

    def encode(self, parts: Sequence[str]) -> _Ids:
        """The ids of each."""
        if len(self._numbers) > _MOST_KNOWN:
            self._numbers, self._ids = {}, _Ids(*(array[:0] for array in self._ids))
        new = list(dict.fromkeys(part for part in parts if part not in self._numbers))
        if new:
            pairs = zip(self._ids, _encode_parts(new, self.tokenizer()), strict=True)
            self._ids = _Ids(*map(np.concatenate, pairs))
            self._numbers.update(zip(new, itertools.count(len(self._numbers)), strict=False))
        return self._ids.take(np.fromiter(map(self._numbers.__getitem__, parts), np.int64, len(parts)))


# By the state of the tokenizer's model, which may be trained or replaced in place.
_known: "weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[bytes, _KnownParts]]" = weakref.WeakKeyDictionary()


def _known_parts(tokenizer: PreTrainedTokenizerBase) -> _KnownParts:
    """What is known of a tokenizer as it is now."""
    state = hashlib.sha256(bytes(tokenizer.backend_tokenizer.model.__getstate__())).digest()
    if tokenizer not in _known or _known[tokenizer][0] != state:
        _known[tokenizer] = (state, _KnownParts(tokenizer))
    return _known[tokenizer][1]


def _encode_parts(parts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> _Ids:
    """The ids of each part, many in one text with a special token behind each: a text costs as much as some words."""
    special = tokenizer.added_tokens_decoder
    end = special.get(tokenizer.eos_token_id)
    if end is None or end.lstrip or end.rstrip or end.single_word:
        return _encode_alone(parts, tokenizer)
    if any(token.content in part for token in special.values() for part in parts):
        return _encode_alone(parts, tokenizer)
    groups = (parts[first : first + _PARTS_TOGETHER] for first in range(0, len(parts), _PARTS_TOGETHER))
    backend = tokenizer.backend_tokenizer
    # Not by `tokenizer`, which works offsets out too. It sets these for itself whenever it is called.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = False
    texts = [end.content.join([*group, ""]) for group in groups]
    found = _Ids.of([text.ids for text in backend.encode_batch_fast(texts, add_special_tokens=False)])
    is_end = found.flat == tokenizer.eos_token_id
    return _Ids(found.flat[~is_end], np.diff(is_end.nonzero()[0], prepend=-1) - 1)


def _encode_alone(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> _Ids:
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    return _Ids.of(tokenizer(list(texts), verbose=False, **options)["input_ids"])
