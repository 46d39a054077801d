"""The training loop of the small models that metrics train: seconds on a CPU, early stopping on held-out loss.

It is no Trainer, whose start-up and callbacks take longer than many of these fits and whose order of data would change
published numbers.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from hf_gpt.allocator import keeps_freed_memory
from hf_gpt.data.collators import pad_rows


# From a model and the positions of examples to their mean loss and its weight (their number, or that of their tokens).
BatchLoss = Callable[[nn.Module, np.ndarray], tuple[torch.Tensor, float]]


@dataclass
class Fit:
    """Held-out loss after each epoch, and the epoch (from 1) whose weights were kept."""

    losses: list[float] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def loss(self) -> float:
        """The lowest held-out loss."""
        return self.losses[self.best_epoch - 1]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds random numbers inside; the state outside stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def length_batches(
    positions: np.ndarray, lengths: np.ndarray, batch_size: int, generator: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Batches of examples of similar length, in random order; without a generator sorted by length."""
    if generator is None:
        ordered = positions[np.argsort(lengths[positions], kind="stable")]
        return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    shuffled = generator.permutation(positions)
    pool = 32 * batch_size
    batches = []
    for start in range(0, len(shuffled), pool):
        batches += length_batches(shuffled[start : start + pool], lengths, batch_size)
    return [batches[n] for n in generator.permutation(len(batches))]


def fit(
    model: nn.Module,
    loss: BatchLoss,
    lengths: Sequence[int],
    training: np.ndarray,
    validation: np.ndarray,
    *,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    patience: int = 2,
    seed: int = 0,
) -> Fit:
    """Trains by AdamW until the held-out loss stops falling, and leaves the best weights.

    Args:
        model: Trained in place; in evaluation mode afterwards.
        loss: Mean loss of the examples at some positions, with gradient, and its weight.
        lengths: Of every example in tokens, for batches with little padding.
        training, validation: Positions of the examples for training and for early stopping, int64.
        epochs: At most.
        batch_size: Examples in a batch.
        learning_rate: Highest; warmed up over the first tenth of the first epoch, constant after it.
        weight_decay: Of AdamW.
        patience: Epochs without a lower held-out loss before it stops.
        seed: Of the order of the examples and of dropout.

    Raises:
        ValueError: there are no examples to train on or to stop by.
        FloatingPointError: the held-out loss is not finite.
    """
    if not len(training) or not len(validation):
        raise ValueError(f"a fit needs examples to train on and to stop by; got {len(training)} and {len(validation)}.")
    lengths = np.asarray(lengths)
    generator = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    record, best, step = Fit(), None, 0
    warmup = max(1, len(training) // batch_size // 10)
    on_cpu = next(model.parameters()).device.type == "cpu"
    with seeded(seed), keeps_freed_memory(on_cpu):
        for epoch in range(1, epochs + 1):
            model.train()
            for positions in length_batches(training, lengths, batch_size, generator):
                step += 1
                optimizer.param_groups[0]["lr"] = learning_rate * min(1.0, step / warmup)
                optimizer.zero_grad()
                loss(model, positions)[0].backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            record.losses.append(mean_loss(model, loss, lengths, validation, batch_size))
            if not np.isfinite(record.losses[-1]):
                raise FloatingPointError(f"the held-out loss of epoch {epoch} is {record.losses[-1]}.")
            if best is None or record.losses[-1] < record.loss:
                record.best_epoch, best = epoch, copy.deepcopy(model.state_dict())
            elif epoch - record.best_epoch >= patience:
                break
    model.load_state_dict(best)
    model.eval()
    return record


@torch.no_grad()
def over_rows(
    read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], rows: Sequence[np.ndarray], batch_size: int
) -> np.ndarray:
    """What `read` gives for token ids and mask of each row, in the order of the rows, read in batches by length."""
    batches = length_batches(np.arange(len(rows)), np.array([len(row) for row in rows]), batch_size)
    found = [read(*pad_rows([rows[position] for position in batch])).double().numpy() for batch in batches]
    return np.concatenate(found)[np.argsort(np.concatenate(batches))]


@torch.no_grad()
def mean_loss(
    model: nn.Module, loss: BatchLoss, lengths: Sequence[int], positions: np.ndarray, batch_size: int = 64
) -> float:
    """The mean loss of the examples at `positions`, each batch by its weight; leaves the model in evaluation mode."""
    model.eval()
    pairs = [loss(model, batch) for batch in length_batches(positions, np.asarray(lengths), batch_size)]
    return sum(value.item() * weight for value, weight in pairs) / sum(weight for _, weight in pairs)
