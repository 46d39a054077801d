"""Likelihood of packed rows under a model."""

import inspect

import datasets
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.generation.scoring.discriminator import evaluating


def takes_skip_logits(model: nn.Module) -> bool:
    """Whether a model can be asked for the loss without logits; an adapter hands over what it does not know."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "skip_logits" in inspect.signature(inner.forward).parameters


@torch.no_grad()
def total_nats(model: PreTrainedModel, rows: datasets.Dataset, batch_size: int) -> tuple[float, int]:
    """Negative log-likelihood of all targets in packed rows.

    Args:
        model: A causal language model that returns the mean loss over the targets of a batch.
        rows: As `packed_dataset.tokenize_and_pack` gives them.
        batch_size: Rows in a forward pass.

    Returns:
        The sum in nats, and the number of targets.
    """
    extra = {"skip_logits": True} if takes_skip_logits(model) else {}
    nats, targets = 0.0, 0
    # Afterwards each module is as it was: some may stay in evaluation while others train.
    with evaluating(model):
        for batch in DataLoader(rows, batch_size=batch_size, collate_fn=PackedRowsCollator()):
            count = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
            if count:
                inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
                nats += model(**inputs, use_cache=False, **extra).loss.item() * count
                targets += count
    return nats, targets
