"""Rows to batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


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
