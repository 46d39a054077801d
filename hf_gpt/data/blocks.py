"""Blocks of long documents, from all over each, so that held-out text is text of the same kind as the rest."""

import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hf_gpt.data.splits import held_out_rows, same_text


# Many blocks on the smaller side make both sides alike: with 64 of Tiny Shakespeare a classifier tells their scenes
# (AUC 0.55), with 256 it does not. Long ones leave context to most of their text.
BLOCKS_WANTED, LEAST_CHARACTERS, MOST_CHARACTERS = 256, 128, 4096
# Characters that two blocks must share in one piece to count as copied from each other there.
_SHINGLE = 32
_CHARACTERS_AT_ONCE = 4_000_000
_ENDS = tuple(map(re.compile, (r"\n[^\S\n]*\n+", r"\n", r"(?<=\S)\s+")))


def split_into_blocks(documents: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]] | None:
    """Splits documents by blocks from all over them, the same ones for the same texts and seed.

    Blocks that follow each other on one side stay one text; where the other side took what lay between, texts are
    apart. Blocks that repeat each other, in a quarter of their text or more, are on one side.

    Args:
        documents: Texts, in order.
        fraction: Share held out, above 0 and below 1.
        seed: Of the sampling.

    Returns:
        Training and held-out texts, each in their first order, which together are the documents, character by
        character; None where there are not two blocks with text in them.
    """
    size = block_size(sum(map(len, documents)), fraction)
    blocks, owners = [], []
    for owner, document in enumerate(documents):
        found = cut_into_blocks(document, size)
        blocks += found
        owners += [owner] * len(found)
    if sum(bool(block.strip()) for block in blocks) < 2:
        return None
    held_out = set(held_out_rows(near_copies(blocks), fraction, seed, is_stratified=True).tolist())
    sides: tuple[list[str], list[str]] = ([], [])
    before = None
    for position, (block, owner) in enumerate(zip(blocks, owners, strict=True)):
        side = position in held_out
        if before == (side, owner):
            sides[side][-1] += block
        else:
            sides[side].append(block)
        before = side, owner
    return sides


def block_size(num_characters: int, fraction: float) -> int:
    """Characters of a block: `BLOCKS_WANTED` of them on the smaller side, within bounds, and one at the least."""
    share = num_characters * min(fraction, 1 - fraction)
    return max(1, int(min(max(share / BLOCKS_WANTED, LEAST_CHARACTERS), MOST_CHARACTERS, share)))


def cut_into_blocks(text: str, size: int) -> list[str]:
    """Cuts a text into blocks of half to one and a half times `size` characters.

    A cut lies after a blank line where that leaves a choice, else after a line end, else after other blanks, else
    between any two characters. The characters before a cut decide where it lies. So a passage that is repeated is cut
    alike, and its copies are equal blocks.

    Args:
        text: Any text; blocks that would be blank are part of the one before.
        size: In characters, at least 1.

    Returns:
        Blocks that together are the text.
    """
    blocks: list[str] = []
    start = 0
    while start < len(text):
        low, high = start + max(1, size // 2), start + size + size // 2
        end = len(text) if high >= len(text) else _cut(text, low, high)
        block = text[start:end]
        if blocks and not block.strip():
            blocks[-1] += block
        else:
            blocks.append(block)
        start = end
    if len(blocks) > 1 and not blocks[0].strip():
        blocks[:2] = [blocks[0] + blocks[1]]
    return blocks


def _cut(text: str, low: int, high: int) -> int:
    """The end of a block in `low` to `high`, chosen by a checksum of the characters before it."""
    positions: list[int] = []
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(text, low - 1, high)]
        # Not between the halves of a line end.
        positions = [end for end in ends if end >= low and text[end - 1 : end + 1] != "\r\n"]
        if positions:
            break
    return min(positions or range(low, high + 1), key=lambda end: zlib.crc32(_before(text, end)))


def _before(text: str, end: int) -> bytes:
    """What is written before a place, the same in copies of other case or line ends."""
    return same_text(text[max(0, end - 24) : end]).encode("utf-8", "surrogatepass")


def near_copies(blocks: Sequence[str]) -> list[int]:
    """A number for each block, the same for blocks that share a quarter of their pieces of `_SHINGLE` characters.

    Case and the kind of blanks do not count. Takes time and memory in proportion to the text.
    """
    texts = [same_text(block) for block in blocks]
    numbers: dict[str, int] = {}
    parents = [numbers.setdefault(text, position) for position, text in enumerate(texts)]

    def root(position: int) -> int:
        while parents[position] != position:
            parents[position] = position = parents[parents[position]]
        return position

    hashes, owners = _shingles(texts)
    counts = np.bincount(owners, minlength=len(texts))
    shared = np.flatnonzero((hashes[1:] == hashes[:-1]) & (owners[1:] != owners[:-1]))
    for (first, second), count in Counter(
        zip(owners[shared].tolist(), owners[shared + 1].tolist(), strict=True)
    ).items():
        if 4 * count >= min(counts[first], counts[second]):
            parents[root(second)] = root(first)
    return [root(position) for position in range(len(texts))]


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the different pieces of each text and the numbers of their texts, both `(pieces,)`, by hash.

    Of long corpora a sample of the pieces, the same ones in every text.
    """
    lengths = np.array([len(text) for text in texts])
    parts = lengths.cumsum() // _CHARACTERS_AT_ONCE
    found = []
    for part in range(parts[-1] + 1):
        positions = np.flatnonzero(parts == part)
        hashes, owners = _piece_hashes([texts[position] for position in positions])
        if parts[-1] > 0:
            sampled = hashes >> np.uint64(60) == 0
            hashes, owners = hashes[sampled], owners[sampled]
        found.append((hashes, positions[owners]))
    hashes, owners = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[new], owners[new]


def _piece_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hash of every piece of `_SHINGLE` characters, and the number of its text: uint64 and int64, `(pieces,)`."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    if len(codes) < _SHINGLE:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    # Sums of powers modulo 2^64, doubled in width each time.
    base, width, hashes = 0x9E3779B97F4A7C15, 1, codes * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(1)
    while width < _SHINGLE:
        hashes = hashes[:-width] * np.uint64(base) + hashes[width:]
        base, width = base * base % 2**64, 2 * width
    inside = owners[: len(hashes)] == owners[width - 1 :]
    return hashes[inside], owners[: len(hashes)][inside]
