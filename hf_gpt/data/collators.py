"""Rows to batches."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from hf_gpt.data.packing import IGNORE_INDEX


def pad_rows(
    rows: Sequence[Sequence[int]], pad_token_id: int = 0, side: Literal["left", "right"] = "right"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, int64 of shape (len(rows), longest), with padding at one side of each row."""
    ids = pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], True, pad_token_id, side)
    return ids, pad_sequence([torch.ones(len(row), dtype=torch.int64) for row in rows], True, 0, side)


class PackedRowsCollator:
    """Stacks packed rows, all of one length, into tensors.

    There is no attention mask and no cache flag in a batch: restarting `position_ids` alone keep documents apart.
    """

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Batch of int64 tensors of shape (len(rows), max_length), one for each column.

        Raises:
            ValueError: rows of different lengths.
        """
        lengths = {len(row["input_ids"]) for row in rows}
        if len(lengths) != 1:
            raise ValueError(f"Packed rows must have one length, found {sorted(lengths)}. Pack them with data.pack.")
        return {name: torch.from_numpy(np.asarray([row[name] for row in rows], dtype=np.int64)) for name in rows[0]}


class Seq2SeqCollator:
    """Pads sources and targets, and adds what the decoder reads, which a loss outside the model needs.

    Args:
        collate: Makes a batch of rows.
        model: The model, whose way to shift labels is used where it has one.
    """

    def __init__(self, collate: "PaddingCollator", model: Any):
        self.collate = collate
        self.shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """As `PaddingCollator`, with `decoder_input_ids` of the shape of `labels`."""
        batch = self.collate(rows)
        if self.shift is not None:
            batch["decoder_input_ids"] = self.shift(labels=batch["labels"])
        return batch


class PaddingCollator:
    """Pads examples of different lengths to the longest one, at the right end.

    Lists of integers grow to one length: `labels` by -100, `attention_mask` by 0, others by the padding token. Numbers
    are stacked, and so are lists of floats, such as the probabilities of classes.

    Args:
        pad_token_id: What fills `input_ids`.
        pad_to_multiple_of: Round lengths up to a multiple of this, which keeps the number of shapes small.
    """

    def __init__(self, pad_token_id: int, pad_to_multiple_of: int = 8):
        self.fill = {"labels": IGNORE_INDEX, "attention_mask": 0}
        self.pad_token_id = pad_token_id
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Batch of tensors, int64 or float32, of shape (len(rows), length) or (len(rows),), one for each column."""
        batch = {}
        for name, first in rows[0].items():
            values = [row[name] for row in rows]
            if isinstance(first, Sequence) and first and isinstance(first[0], float):
                batch[name] = torch.tensor(values, dtype=torch.float32)
                continue
            if isinstance(first, Sequence):
                multiple = self.pad_to_multiple_of
                width = -(-max(len(value) for value in values) // multiple) * multiple
                fill = self.fill.get(name, self.pad_token_id)
                values = [[*value, *[fill] * (width - len(value))] for value in values]
            batch[name] = torch.tensor(values, dtype=torch.int64)
        return batch
