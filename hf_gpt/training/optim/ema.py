"""Exponential moving average of the weights, which scores better than the weights while the learning rate is high."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import Trainer, TrainerCallback

from hf_gpt import compat
from hf_gpt.errors import CheckpointError, ConfigError
from hf_gpt.files.checkpoint_parts import WEIGHT_AVERAGE_NAME
from hf_gpt.training.distributed.sharding import local, named_parameters, reshard, shard_like, whole


class WeightAverage:
    """The average `decay * average + (1 - decay) * weights` over steps, in float32, of a model's trainable weights.

    The first steps count more, by `decay = min(decay, (1 + step) / (10 + step))`, or the average would keep the initial
    weights for long. Tied weights are averaged once; buffers are not averaged. Of weights in shards
    (`torch.distributed.tensor.DTensor`) each process averages its own, in a layout that stays as it is.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.num_updates = 0
        self.weights = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in named_parameters(model).items()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights of the model after a step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        parameters = named_parameters(model)
        averages = [local(average) for average in self.weights.values()]
        compat.lerp_all(averages, [local(parameters[name]).float() for name in self.weights], 1 - decay)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        reshard(model)
        parameters = {name: parameter for name, parameter in named_parameters(model).items() if name in self.weights}
        former = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._copy(self.weights, parameters)
        try:
            yield
        finally:
            # What a forward pass has gathered holds the average.
            reshard(model)
            self._copy(former, parameters)

    def save(self, folder: Path, writes: bool = True) -> None:
        """Writes the average, in whole tensors, into the folder of a checkpoint, from the process that `writes`.

        All processes must call it together.
        """
        weights = whole(self.weights, keep=writes)
        if writes:
            metadata = {"num_updates": str(self.num_updates), "format": "pt"}
            save_file(weights, folder / WEIGHT_AVERAGE_NAME, metadata=metadata)

    def load(self, folder: Path) -> None:
        """Takes over a checkpoint's average; raises `CheckpointError` where it has none, or that of another model."""
        path = folder / WEIGHT_AVERAGE_NAME
        if not path.is_file():
            raise CheckpointError(
                f"{folder}: the checkpoint has no {WEIGHT_AVERAGE_NAME}: its run did not average weights. Go on "
                "without --ema_decay, or start anew from its weights by --model_name_or_path."
            )
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if names != self.weights.keys():
                odd = sorted(names ^ self.weights.keys())[0]
                raise CheckpointError(
                    f"{path}: belongs to another model, for example by {odd}. Resume with that model."
                )
            self.num_updates = int(file.metadata()["num_updates"])
            for name, average in self.weights.items():
                local(average).copy_(local(shard_like(file.get_tensor(name), average)))

    @staticmethod
    @torch.no_grad()
    def _copy(source: dict[str, torch.Tensor], target: dict[str, nn.Parameter]) -> None:
        for name, parameter in target.items():
            local(parameter).copy_(local(source[name]))


def check_can_average(trainer: Trainer) -> None:
    """Raises `ConfigError` where weights are sharded in a way that cannot be averaged."""
    if trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise ConfigError("--ema_decay does not work with FSDP of version 1. Set fsdp_version: 2.")
    if trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3:
        raise ConfigError(
            "--ema_decay does not work with DeepSpeed ZeRO-3, which shards weights in a way of its own. "
            "Use --accelerate zero2 or fsdp2."
        )


class WeightAverageCallback(TrainerCallback):
    """Makes the average when training begins, and updates it after each step of the optimizer.

    Attributes:
        average: The average; None until it is made or loaded.
        skips_next: Whether the step under way changes no weight, and so not the average either.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.average: WeightAverage | None = None
        self.skips_next = False

    def load(self, model: nn.Module, folder: Path) -> None:
        """Goes on from the average of a checkpoint."""
        self.average = WeightAverage(model, self.decay)
        self.average.load(folder)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if self.average is None:
            self.average = WeightAverage(model, self.decay)

    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        # The loss scaler of float16 leaves steps out, too.
        skips, self.skips_next = self.skips_next or getattr(optimizer, "step_was_skipped", False), False
        if not skips:
            self.average.update(model)
