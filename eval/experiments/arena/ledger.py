"""What an arm spends: FLOPs of every forward and backward pass of its models, and CPU-seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_gpt.training.monitoring.cost_model import model_flops_per_token


@dataclass
class Cost:
    """FLOPs and CPU-seconds; costs add up."""

    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.seconds + other.seconds)


class Ledger:
    """Books the passes of watched models: each token forward once, and twice more where a backward pass will follow.

    Copies of a watched model book into the same ledger.
    """

    def __init__(self) -> None:
        self.cost = Cost()
        self.is_open = False

    @contextmanager
    def watching(self, *models: PreTrainedModel) -> Iterator[Cost]:
        """Books what happens inside; the CPU-seconds of the process are added at the end."""
        # Heads are at times applied to the base model's output without a call of the whole.
        handles = [
            model.base_model.register_forward_pre_hook(self._booking(model), with_kwargs=True) for model in models
        ]
        self.is_open, began = True, time.process_time()
        try:
            yield self.cost
        finally:
            # Copies keep their hooks.
            self.is_open = False
            self.cost.seconds += time.process_time() - began
            for handle in handles:
                handle.remove()

    def _booking(self, model: PreTrainedModel) -> Callable[[PreTrainedModel, tuple[Any, ...], dict[str, Any]], None]:
        forward = model_flops_per_token(model, model.config.get_text_config().max_position_embeddings) / 3

        def book(called: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.is_open:
                ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
                learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in called.parameters())
                self.cost.flops += ids.numel() * forward * (3 if learns else 1)

        return book
