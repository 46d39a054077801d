"""`Trainer` for models in shards, whose checkpoints hold whole tensors."""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import AutocastKwargs, recursively_apply
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from hf_gpt import compat
from hf_gpt.errors import ConfigError
from hf_gpt.training.distributed import sharding
from hf_gpt.training.resumption.staged import StagedTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


class ShardedTrainer(StagedTrainer):
    """Saves and loads a model that `sharding.shard_model` sharded, for any number of processes; refuses a whole one."""

    args: HfGptTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any):
        training_args = kwargs.get("args", args[1] if len(args) > 1 else None)
        with compat.accepts_sharded_optimizer(training_args):
            super().__init__(*args, **kwargs)
        if self.args.is_sharded:
            if not getattr(self.model, "is_distributed_loading_by_transformers", False):
                raise ConfigError(
                    "--tensor_parallel_size and --fsdp_size need a model that sharding.shard_model sharded."
                )
            # A cast of a block's weights that autocast keeps from the first pass takes their gradient away.
            self.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)

    def train(self, *args: Any, **kwargs: Any):
        # The optimizer and the average would take what an evaluation has gathered for weights, and train copies.
        sharding.reshard(self.model)
        return super().train(*args, **kwargs)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs) -> Any:
        if self.label_smoother is not None:
            sharding.keep_name(self.accelerator.unwrap_model(model))
        return super().compute_loss(model, inputs, return_outputs, **kwargs)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        grad_norm = super()._get_grad_norm(model, grad_norm)
        return grad_norm.full_tensor() if isinstance(grad_norm, DTensor) else grad_norm

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        if self.args.tensor_parallel_size > 1:
            self.gather_function = self._gather_batches
        return super().evaluation_loop(*args, **kwargs)

    def _gather_batches(self, tensors: Any) -> Any:
        """As `gather_for_metrics`; the batch that a tensor-parallel group has in common counts once."""

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            sizes = (self.args.data_parallel_size, self.args.tensor_parallel_size, -1)
            return self.accelerator.gather(tensor).unflatten(0, sizes)[:, 0].flatten(0, 1)

        gathered, state = recursively_apply(gather, tensors), self.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder > 0:
            gathered = recursively_apply(lambda tensor: tensor[: state.remainder], gathered)
        return gathered

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.is_sharded and state_dict is None:
            with sharding.whole_state_dict(self.model, keep=self.args.should_save) as gathered:
                return self._save(output_dir, gathered) if self.args.should_save else None
        if state_dict is not None:
            state_dict = sharding.tied_once(self.model, state_dict)
        with sharding.own_class(self.model), compat.generation_cache(self.model):
            return super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.args.is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = sharding.whole(self.optimizer.state_dict(), keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_state(self, checkpoint: str) -> None:
        if not self.args.is_sharded:
            super()._load_optimizer_state(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(sharding.shard_optimizer_state(state, self.optimizer))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.args.is_sharded:
            sharding.load_weights(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self.args.is_sharded:
            sharding.load_weights(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # A tied weight is saved once, under its other name.
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))
