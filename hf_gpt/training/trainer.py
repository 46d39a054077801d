"""`transformers.Trainer` with our optimizer, throughput, bits per byte and whole checkpoints."""

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import SchedulerType

from hf_gpt import compat
from hf_gpt.allocator import keeps_freed_memory
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.data.samplers import LengthGroups
from hf_gpt.data.streaming import WindowStream
from hf_gpt.data.targets import has_targets, warn_without_targets
from hf_gpt.errors import ConfigError
from hf_gpt.files.checkpoint_parts import Needs, needs_of
from hf_gpt.generation.scoring.discriminator import accepted_arguments
from hf_gpt.terminal import safe_output
from hf_gpt.training.distributed.sharded_trainer import ShardedTrainer
from hf_gpt.training.monitoring.callbacks import OrderOfEpochCallback, use_own_progress
from hf_gpt.training.monitoring.likelihood import HeldOutLoss
from hf_gpt.training.monitoring.mfu import utilisation
from hf_gpt.training.monitoring.nonfinite import NonFiniteError, StepRecorder, describe_stop
from hf_gpt.training.monitoring.throughput import ThroughputMeter
from hf_gpt.training.monitoring.trainability import check_trainable, warn_if_idle, warn_if_skipped
from hf_gpt.training.optim.ema import WeightAverageCallback, check_can_average
from hf_gpt.training.optim.muon_adamw import build_optimizer, decayed_parameter_names
from hf_gpt.training.resumption.stream_position import StreamPosition
from hf_gpt.training.training_arguments import HfGptTrainingArguments


class HfGptTrainer(ShardedTrainer):
    """A Trainer for language models.

    - `args.optimizer` chooses Muon with AdamW, or any optimizer of the library.
    - Logs hold `tokens_per_second`, `eta_seconds` and `mfu`, the share of the FLOPs that the device's matrix products
      reach; evaluation and saving not counted.
    - With `args.ema_decay`, evaluation and `save_model` use the averaged weights; checkpoints hold both.
    - Runs are resumed exactly or refused by name, see `ResumableTrainer`. The position in a `WindowStream` that is
      trained on is part of a checkpoint; resuming begins to read there.
    - A step without any label (all -100) changes no weight, and is warned of.
    - A step whose loss or gradient is not finite, in any process, changes neither weights, their average nor the
      optimizer's state: it stops training or is skipped, by `args.nan_action`. It counts as a step, of the schedule
      too. DeepSpeed steps by itself, before the gradient is known here, so there a run can stop but not skip.
    - `eval_loss` is the mean over all predicted tokens, `eval_bits_per_byte` the same text's nats / ln 2 / bytes, which
      can be compared between tokenizers.
    - A checkpoint folder appears when it is complete.

    Args:
        eval_num_bytes: UTF-8 bytes of the validation text; without it there is no `eval_bits_per_byte`.
        is_language_model: Whether the loss is the mean over next tokens. If not, `eval_loss` is the library's.
        args, kwargs: As for `Trainer`.
    """

    args: HfGptTrainingArguments
    # Whether each token has a label of its own, none of which is the next token.
    has_token_labels = False
    # Whether training leaves out rows that fill no batch, whatever `dataloader_drop_last` says.
    needs_whole_batches = False

    def __init__(self, *args: Any, eval_num_bytes: int | None = None, is_language_model: bool = True, **kwargs: Any):
        training_args = kwargs.get("args", args[1] if len(args) > 1 else None)
        if not isinstance(training_args, HfGptTrainingArguments):
            raise TypeError(f"HfGptTrainer needs HfGptTrainingArguments as args, got {type(training_args).__name__}.")
        stream = kwargs.get("train_dataset")
        if isinstance(stream, WindowStream) and (training_args.tensor_parallel_size > 1 or not stream.has_one_length):
            # One process cannot read for all: batches of the others must be like its own, and a tensor-parallel group
            # must have one. So each reads the stream and keeps its rows.
            training_args.accelerator_config.dispatch_batches = False
        super().__init__(*args, **kwargs)
        self.eval_num_bytes = eval_num_bytes
        self.is_language_model = is_language_model
        self.meter = ThroughputMeter()
        self._row_length = 0
        self._recorder = StepRecorder()
        self._heldout_loss = HeldOutLoss()
        self._step_has_targets, self._steps_without_targets = True, 0
        self._takes_skip_logits = "skip_logits" in accepted_arguments(self.model)
        self._stream: StreamPosition | None = None
        if isinstance(self.train_dataset, WindowStream):
            self._stream = StreamPosition(self.train_dataset, self)
            self._epoch_ends.is_stream = True
        if self.is_deepspeed_enabled and self.args.optimizer == "muon" and self.optimizer is None:
            raise ConfigError(
                "--optimizer muon works on whole matrices, which DeepSpeed does not keep. Use --optimizer adamw, or "
                "shard by --accelerate fsdp2."
            )
        self._average: WeightAverageCallback | None = None
        if self.args.ema_decay is not None:
            check_can_average(self)
            self._average = WeightAverageCallback(self.args.ema_decay)
            self.add_callback(self._average)
        self.add_callback(OrderOfEpochCallback())
        use_own_progress(self)

    # Optimizer and schedule

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained = self.model if model is None else model
            self.optimizer = build_optimizer(trained, self.args, self.get_decay_parameter_names(trained))
        return super().create_optimizer(model)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return decayed_parameter_names(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        options = self.args.lr_scheduler_kwargs or {}
        if self.args.lr_scheduler_type == SchedulerType.WARMUP_STABLE_DECAY:
            # The library's schedule has no default for the length of its decay.
            decay_steps = self.args.get_decay_steps(num_training_steps)
            options = {"num_decay_steps": decay_steps, "decay_type": "linear", **options}
        with compat.schedule_options(self.args, options):
            return super().create_scheduler(num_training_steps, optimizer)

    # Examples and their order

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> torch.utils.data.DataLoader:
        # An evaluation is of all rows.
        drop_last = is_training and (self.args.dataloader_drop_last or self.needs_whole_batches)
        with compat.drops_last_batch(self.args, drop_last):
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return LengthGroups(sampler.lengths, sampler.batch_size, seed)
        return sampler

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        self._step_has_targets = not batches or has_targets(batches, num_items)
        if not self._step_has_targets:
            self._steps_without_targets += 1
            if self._steps_without_targets == 1:
                warn_without_targets(self.state.global_step + 1)
            # Divided by 0, the loss would be NaN.
            num_items = None if num_items is None else num_items + 1
        if self._stream is not None:
            self._stream.count(len(batches))
        return batches, num_items

    # Training

    def _prepare_for_training(self, max_steps: int, *args: Any, **kwargs: Any):
        prepared = super()._prepare_for_training(max_steps, *args, **kwargs)
        if self.is_world_process_zero() and not self.args.dry_run:
            warn_if_idle(self, max_steps)
        return prepared

    def train(self, *args: Any, **kwargs: Any):
        check_trainable(self.model)
        self.meter = ThroughputMeter()
        if self._stream is not None:
            self._stream.rewind()
        if self._average is not None:
            self._average.average = None
        try:
            with safe_output(), keeps_freed_memory(self.args.keep_freed_memory and self.args.device.type == "cpu"):
                output = super().train(*args, **kwargs)
            if self.is_world_process_zero():
                warn_if_skipped(self._recorder.skipped, self.meter.steps)
            return output
        finally:
            self.meter.stop()

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self.meter.start()
        if "input_ids" in inputs:
            self.meter.tokens += inputs["input_ids"].numel() * self.args.data_parallel_size
            self._row_length = inputs["input_ids"].shape[-1]
        if self.accelerator.sync_gradients:
            self.meter.steps += 1
        loss = super().training_step(model, inputs, num_items_in_batch)
        takes_none = self.accelerator.scaler is None and not self.is_deepspeed_enabled
        if not self._step_has_targets and self.accelerator.sync_gradients and takes_none:
            # Weights would decay, and momentum move them.
            self._leave_weights_alone(model)
        self._recorder.add(inputs, loss)
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs) -> Any:
        if not return_outputs and self._nobody_reads_logits():
            inputs = {"skip_logits": "auto", **inputs}
        return super().compute_loss(model, inputs, return_outputs, **kwargs)

    def _nobody_reads_logits(self) -> bool:
        reads = (
            type(self).compute_loss is not HfGptTrainer.compute_loss or self.compute_loss_func or self.label_smoother
        )
        return self._takes_skip_logits and not reads

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # Called once before each step of the optimizer, with the norm over all processes.
        grad_norm = super()._get_grad_norm(model, grad_norm)
        norm = 0.0 if grad_norm is None else float(grad_norm)
        if self._recorder.is_bad(norm, self.accelerator):
            step = self.state.global_step + 1
            if self.args.nan_action == "stop":
                path = self._recorder.save(Path(self.args.output_dir), step, self.args.process_index)
                raise NonFiniteError(describe_stop(step, self._recorder.losses, norm, path))
            self._leave_weights_alone(model)
            self._recorder.skipped += 1
        self._recorder.clear()
        return grad_norm

    def _leave_weights_alone(self, model: nn.Module) -> None:
        """Has the step under way change neither weights, optimizer state nor average."""
        # Optimizers pass over parameters without a gradient.
        model.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.skips_next = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._add_progress(logs)
        super().log(logs, start_time)

    def _add_progress(self, logs: dict[str, float]) -> None:
        """Puts speed, time left and steps that were dropped into a log entry of training."""
        logs["tokens_per_second"] = round(self.meter.read(), 1)
        logs["eta_seconds"] = round(self.meter.seconds_left(self.state.max_steps - self.state.global_step), 3)
        if self._row_length and getattr(self.model, "config", None) is not None:
            with self.meter.paused():
                share = utilisation(self.model, self.args, self._row_length, logs["tokens_per_second"])
            logs["mfu"] = round(share, 4)
        if self._recorder.skipped:
            logs["skipped_steps"] = self._recorder.skipped
        if self._steps_without_targets:
            logs["steps_without_labels"] = self._steps_without_targets
        if self._stream is not None:
            logs.update(self._stream.stream.cuts.to_log())

    # Evaluation

    def averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has the averaged weights, if there are any."""
        if self._average is None or self._average.average is None:
            return contextlib.nullcontext()
        return self._average.average.applied(self.model)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with safe_output(), self.meter.paused(), self.averaged_weights():
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any):
        self._heldout_loss.clear()
        # Smoothing is a means of training; a smoothed loss is not a likelihood of the text.
        with compat.without_label_smoothing(self):
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.is_language_model or self.has_token_labels:
            copies = self.args.tensor_parallel_size
            found = self._heldout_loss.metrics(self.accelerator, copies, self.eval_num_bytes)
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
        return output

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, **kwargs: Any):
        if not self.is_language_model and not self.has_token_labels:
            return super().prediction_step(model, inputs, prediction_loss_only, **kwargs)
        targets = self._count_targets(inputs["labels"]) if "labels" in inputs else 0
        if prediction_loss_only and self._nobody_reads_logits():
            inputs = {**inputs, "skip_logits": True}
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, **kwargs)
        if loss is not None:
            # Trainer divides by the targets of all processes and multiplies by their number.
            divisor = float(targets)
            if self.args.world_size > 1 and self.args.average_tokens_across_devices and self.model_accepts_loss_kwargs:
                counts = self.accelerator.gather(torch.tensor([divisor], device=self.args.device))
                divisor = counts.sum().item() / self.args.world_size
            self._heldout_loss.add(loss.item() * divisor if targets else 0.0, targets)
        return loss, logits, labels

    def _count_targets(self, labels: torch.Tensor) -> int:
        """How many labels the loss is the mean over."""
        return int(((labels if self.has_token_labels else labels[..., 1:]) != IGNORE_INDEX).sum())

    # Checkpoints

    def needs(self) -> Needs:
        return needs_of(self.args, stream=self._stream is not None)

    def train_fingerprint(self, checkpoint: Path | None) -> str | None:
        return super().train_fingerprint(checkpoint) if self._stream is None else self._stream.fingerprint(checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # Trainer calls itself for checkpoints, which go on from the weights as they are.
        with contextlib.nullcontext() if _internal_call else self.averaged_weights():
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.meter.paused():
            super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._average is not None:
            self._average.average.save(Path(output_dir), writes=self.args.should_save)
        if self._stream is not None and self.args.should_save:
            self._stream.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._average is not None and checkpoint is not None:
            self._average.load(self.model, Path(checkpoint))
        if self._stream is not None and checkpoint is not None:
            self._stream.load(Path(checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self._average is not None:
            self._average.average.load(Path(self.state.best_model_checkpoint))
