"""The loss of an evaluation as a mean over tokens, whatever the batches."""

import math

import torch
from accelerate import Accelerator


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
        """`loss` in nats per token and, if `num_bytes` is known, `bits_per_byte`; empty without a target.

        All processes must call it together.

        Args:
            accelerator: Adds up the processes.
            copies: Processes that evaluate the same batch.
            num_bytes: UTF-8 bytes of the text.
        """
        totals = torch.tensor([self._nats, self._targets], dtype=torch.float32, device=accelerator.device)
        nats, targets = (accelerator.reduce(totals, reduction="sum") / copies).tolist()
        if not targets:
            return {}
        found = {"loss": nats / targets}
        if num_bytes:
            found["bits_per_byte"] = nats / math.log(2) / num_bytes
        return found
