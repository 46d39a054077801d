"""Large blocks of memory for reuse: the system clears new ones, which takes as long as several steps."""

import weakref

import torch

from hf_gpt.generation.decoding.native.structures import Native


# Bytes that are kept for the next user, in all.
MOST_SPARE = 2**28

_spare: dict[int, torch.Tensor] = {}


def borrow(num_bytes: int, owner: object, library: Native) -> torch.Tensor:
    """Memory of any content, in large pages where the system has them.

    Args:
        num_bytes: Size of the result.
        owner: The memory is free for reuse once this object is gone.
        library: The compiled functions.

    Returns:
        (`num_bytes`,) uint8.
    """
    block = _take(num_bytes)
    if block is None:
        # Later users write in place, whatever mode this caller is in.
        with torch.inference_mode(False):
            block = torch.empty(num_bytes, dtype=torch.uint8)
        library.large_pages(block.data_ptr(), num_bytes)
    weakref.finalize(owner, _give_back, block).atexit = False
    return block[:num_bytes]


def _take(num_bytes: int) -> torch.Tensor | None:
    # Other threads and finalizers may take and give meanwhile.
    for key, block in list(_spare.items()):
        if num_bytes <= block.nbytes <= 2 * num_bytes and _spare.pop(key, None) is not None:
            return block
    # The oldest block goes where none fits.
    _spare.pop(next(iter(list(_spare)), None), None)
    return None


def _give_back(block: torch.Tensor) -> None:
    if sum(spare.nbytes for spare in list(_spare.values())) + block.nbytes <= MOST_SPARE:
        _spare[block.data_ptr()] = block
