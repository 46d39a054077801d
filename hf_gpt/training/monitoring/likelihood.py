"""The loss of texts as a mean over tokens, whatever the batches."""

import math

import datasets
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.generation.scoring.discriminator import accepted_arguments, evaluating


class HeldOutLoss:
    """Sums losses and targets over the batches of an evaluation, in this process."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Begins another evaluation."""
        self._nats = self._targets = 0.0

    def add(self, nats: float, targets: int) -> None:
        """Adds a batch: the sum of its losses in nats, and the number of labels that count."""
        self._nats += nats
        self._targets += targets

    def metrics(self, accelerator: Accelerator, copies: int, num_bytes: int | None) -> dict[str, float]:
        """`loss` in nats per token and, for a text of `num_bytes` in UTF-8, `bits_per_byte`; empty without a target.

        All processes must call it together, of which `copies` evaluate the same batch.
        """
        totals = torch.tensor([self._nats, self._targets], dtype=torch.float32, device=accelerator.device)
        nats, targets = (accelerator.reduce(totals, reduction="sum") / copies).tolist()
        if not targets:
            return {}
        found = {"loss": nats / targets}
        if num_bytes:
            found["bits_per_byte"] = nats / math.log(2) / num_bytes
        return found


@torch.no_grad()
def total_nats(model: PreTrainedModel, rows: datasets.Dataset, batch_size: int) -> tuple[float, int]:
    """Negative log-likelihood of all targets in packed rows, in nats, and the number of targets.

    Args:
        model: A causal language model that returns the mean loss over the targets of a batch.
        rows: As `packed_dataset.tokenize_and_pack` gives them.
        batch_size: Rows in a forward pass.
    """
    extra = {"skip_logits": True} if "skip_logits" in accepted_arguments(model) else {}
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
