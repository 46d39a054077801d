"""`TrainingArguments` with the options and defaults of hf-gpt."""

import math
import os
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from hf_gpt.errors import ConfigError
from hf_gpt.option_values import check_at_least, option


@dataclass
class HfGptTrainingArguments(TrainingArguments):
    """The library's arguments and these; every field of `TrainingArguments` is an option too.

    Defaults that differ from the library's: AdamW with `beta2` 0.95 and weight decay 0.1 beside Muon, a
    warmup-stable-decay schedule, bfloat16 wherever the GPU computes in it, checkpoints of the last two saves, loss-only
    evaluation, and no search for unused parameters under DDP.

    Raises:
        ConfigError: options that contradict each other.
    """

    _argument_group_name = "training"

    output_dir: str | None = option("runs/pretrain", "Folder of the run: checkpoints, model, report and settings.")
    overwrite_output_dir: bool = option(False, "Delete the run in the folder and start anew.")
    resume_from_checkpoint: str | None = option(
        None, "Resume from a checkpoint: its folder, or last (or no value) for the newest.", nargs="?", const="last"
    )
    dry_run: bool = option(
        False, "Print sizes, steps and an estimate of the time, from a few timed steps. Nothing is saved."
    )
    optimizer: Literal["muon", "adamw"] = option(
        "muon", "muon: Muon for the hidden weight matrices, AdamW for the rest. adamw: see --optim."
    )
    muon_learning_rate: float | None = option(
        None, "Learning rate of Muon, on the scale of AdamW's. Left out: learning_rate."
    )
    muon_momentum: float = option(0.95, "Momentum of Muon.")
    learning_rate: float = option(2e-3, "Highest learning rate.")
    adam_beta2: float = option(0.95, "Decay of Adam's second moment.")
    weight_decay: float = option(0.1, "Weight decay of weight matrices; embeddings, norms and biases have none.")
    lr_scheduler_type: str = option("warmup_stable_decay", "Learning-rate schedule, see the library's SchedulerType.")
    warmup_steps: float = option(0.02, "Steps of warm-up; below 1, a share of all steps.")
    decay_steps: float = option(0.5, "Steps of decay at the end of warmup_stable_decay; below 1, a share of all.")
    early_stopping_patience: int | None = option(
        None, "Stop after this many evaluations without a better loss. Left out: never."
    )
    ema_decay: float | None = option(
        None,
        "Average the weights over steps with this decay, for example 0.999. Evaluation and the final model "
        "use the average. Left out: no average.",
    )
    nan_action: Literal["stop", "skip"] = option(
        "stop",
        "What to do about a loss or gradient that is not finite. stop: save the batch in the run's folder "
        "and stop. skip: skip the step and count it. Neither changes the weights.",
    )
    bf16: bool | None = option(None, "Compute in bfloat16. Left out: on GPUs that support it.", nargs="?", const=True)
    per_device_train_batch_size: int = option(16, "Rows in a step, on each device.")
    per_device_eval_batch_size: int = option(16, "Rows in an evaluation step, on each device.")
    logging_steps: float = option(10, "Steps between logs; below 1, a share of all steps.")
    logging_first_step: bool = option(True, "Log the first step too.")
    save_total_limit: int | None = option(2, "Checkpoints kept; older ones are deleted.")
    tensor_parallel_size: int = option(
        1, "Processes that share each weight matrix and the same batch (tensor parallelism)."
    )
    fsdp_size: int = option(
        1,
        "Processes that share weights, gradients and optimizer state (FSDP2), on a CPU too. "
        "fsdp_size x tensor_parallel_size must be the number of processes.",
    )
    keep_freed_memory: bool = option(
        True, "On a CPU under glibc, keep freed memory for the next training step. Faster, with somewhat more memory."
    )
    prediction_loss_only: bool = option(True, "Evaluate the loss alone, without keeping logits.")
    ddp_find_unused_parameters: bool | None = option(
        False, "Search for unused parameters under DDP, which makes every step slower."
    )

    def __post_init__(self):
        check_at_least(self, per_device_train_batch_size=1, per_device_eval_batch_size=1, gradient_accumulation_steps=1)
        if not torch.accelerator.is_available():
            self.use_cpu = True
        if self.bf16 is None:
            self.bf16 = not self.use_cpu and not self.fp16 and is_torch_bf16_gpu_available()
        if self.torch_compile:
            # Compiles one block and reuses it for the others: the same loss from a third to half of the cold start.
            os.environ.setdefault("ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION", "true")
        if self.tensor_parallel_size > 1 and self.use_cpu:
            from hf_gpt.training.distributed.sharding import CpuParallelismConfig

            # Their product is checked below, where the number of processes is known.
            self.parallelism_config = CpuParallelismConfig(
                tp_size=self.tensor_parallel_size, dp_shard_size=max(1, self.fsdp_size)
            )
        default_optim = type(self).__dataclass_fields__["optim"].default
        if self.optimizer == "muon" and self.optim not in (default_optim, "adamw_torch", "adamw_torch_fused"):
            raise ConfigError(
                f"--optim {self.optim} needs --optimizer adamw: beside Muon there is PyTorch's AdamW only."
            )
        if self.decay_steps < 0:
            raise ConfigError(f"--decay_steps must not be negative, got {self.decay_steps}.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"--ema_decay must be above 0 and below 1, got {self.ema_decay}. Try 0.999.")
        if self.early_stopping_patience is not None:
            if self.eval_strategy == "no":
                raise ConfigError("--early_stopping_patience needs evaluations: set --eval_strategy steps or epoch.")
            self.metric_for_best_model = self.metric_for_best_model or "loss"
        if self.greater_is_better is None and str(self.metric_for_best_model).endswith("bits_per_byte"):
            # To the library every metric but a loss is better when it is higher.
            self.greater_is_better = False
        try:
            super().__post_init__()
        except (ValueError, KeyError) as error:
            raise ConfigError(str(error)) from error
        sizes = self.tensor_parallel_size, self.fsdp_size
        if min(sizes) < 1 or (self.is_sharded and math.prod(sizes) != self.world_size):
            raise ConfigError(
                f"--tensor_parallel_size {sizes[0]} times --fsdp_size {sizes[1]} must be the number of processes, "
                f"{self.world_size}. Start them by --accelerate tp or fsdp2 with --num_processes."
            )

    @property
    def is_sharded(self) -> bool:
        """Whether `sharding.shard_model` shards the model."""
        return max(self.tensor_parallel_size, self.fsdp_size) > 1

    @property
    def data_parallel_size(self) -> int:
        """Number of processes that have batches of their own."""
        return self.world_size // self.tensor_parallel_size

    @property
    def data_parallel_index(self) -> int:
        """Number of this process's batches, the same in all that share them."""
        return self.process_index // self.tensor_parallel_size

    def get_decay_steps(self, num_training_steps: int) -> int:
        """Number of decay steps in a run of `num_training_steps`, at most all those after the warm-up."""
        steps = self.decay_steps if self.decay_steps >= 1 else num_training_steps * self.decay_steps
        return max(1, min(int(steps), num_training_steps - self.get_warmup_steps(num_training_steps)))
