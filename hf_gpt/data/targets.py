"""Batches in which nothing is to be learnt."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_gpt.data.packing import IGNORE_INDEX


logger = logging.getLogger(__name__)


def has_targets(batches: Sequence[Any], num_items: torch.Tensor | int | None) -> bool:
    """Whether any label counts in the batches of a step; batches without class ids or tokens as labels have some.

    Args:
        batches: As a data loader gives them.
        num_items: Labels that count in them, where the trainer knows.
    """
    if num_items is not None:
        return bool(num_items)
    for batch in batches:
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        if not torch.is_tensor(labels) or labels.is_floating_point() or bool((labels != IGNORE_INDEX).any()):
            return True
    return False


def warn_without_targets(step: int) -> None:
    """Says that a step teaches nothing."""
    logger.warning(
        "step %d: every label of the batch is %d, so nothing is learnt from it and no weight changes. Were the rows "
        "cut before their answers begin? Raise the length at which they are cut, or leave such rows out. Further such "
        "steps are counted in the logs (steps_without_labels).",
        step,
        IGNORE_INDEX,
    )
