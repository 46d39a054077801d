"""Batches of examples of similar length, in an order that belongs to the seed and the epoch."""

from collections.abc import Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class LengthGroups(LengthGroupedSampler):
    """The library's sampler, whose order depends on nothing but the seed and the epoch.

    The library's order depends on the random state of the process, which dropout and a resumption change. A run that
    is resumed within an epoch would then repeat some examples and miss others.

    Args:
        lengths: Of each example.
        batch_size: Examples that are alike in length.
        seed: Of the order.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()
