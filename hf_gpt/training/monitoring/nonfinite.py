"""What is done about a loss or gradient that is not a finite number."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from hf_gpt.errors import UserError


class NonFiniteError(UserError):
    """Training met a loss or gradient that is not finite, and was asked to stop there."""


class StepRecorder:
    """Remembers the batches and losses of the step that is under way, so that a bad one can be looked at."""

    def __init__(self):
        self.batches: list[Mapping[str, Any]] = []
        self.losses: list[torch.Tensor] = []
        self.skipped = 0

    def add(self, batch: Mapping[str, Any], loss: torch.Tensor) -> None:
        """Remembers a batch and its loss; nothing is copied or waited for."""
        self.batches.append(batch)
        self.losses.append(loss)

    @property
    def has_bad_loss(self) -> bool:
        """Whether a loss of the step is not finite, in this process."""
        return any(not math.isfinite(loss.item()) for loss in self.losses)

    def is_bad(self, gradient_norm: float, accelerator: Accelerator) -> bool:
        """Whether the step must not reach the weights. All processes must ask together.

        `gradient_norm` is that over all processes, or 0 where it is not known.
        """
        # The loss scaler of float16 expects infinite gradients and skips such steps by itself. But a loss that is no
        # number may come with a gradient of zero. DeepSpeed has taken its step by now.
        is_bad = anywhere(self.has_bad_loss, accelerator)
        return is_bad or (accelerator.scaler is None and not math.isfinite(gradient_norm))

    def clear(self) -> None:
        """Forgets the step."""
        self.batches.clear()
        self.losses.clear()

    def save(self, folder: Path, step: int, process: int) -> Path:
        """Writes the batches whose loss is not finite, or all if only the gradient is not, and returns the file."""
        bad = [index for index, loss in enumerate(self.losses) if not math.isfinite(loss.item())]
        tensors = {
            f"{index}.{name}": value.detach().cpu().contiguous()
            for index in bad or range(len(self.batches))
            for name, value in self.batches[index].items()
            if torch.is_tensor(value)
        }
        path = folder / f"not_finite_step_{step}_process_{process}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={"losses": str([loss.item() for loss in self.losses])})
        return path


def anywhere(here: bool, accelerator: Accelerator) -> bool:
    """Whether something is so in any process. All of them must ask together."""
    if accelerator.num_processes == 1:
        return here
    return bool(accelerator.reduce(torch.tensor(float(here), device=accelerator.device), "sum"))


def describe_stop(step: int, losses: Sequence[torch.Tensor], gradient_norm: float, path: Path) -> str:
    """The message of a stop."""
    values = [loss.item() for loss in losses]
    shown = ", ".join(f"{value:g}" for value in values)
    what = "not finite numbers"
    if all(map(math.isfinite, [*values, gradient_norm])):
        what = "and the loss of another process is not a finite number"
    return (
        f"step {step}: the loss is {shown} and the gradient's norm {gradient_norm:g}, {what}. The batch is "
        f"in {path} (safetensors.torch.load_file). The weights are those before the step. Lower --learning_rate or "
        "raise --warmup_steps, look for damaged text, or go over such steps by --nan_action skip."
    )
