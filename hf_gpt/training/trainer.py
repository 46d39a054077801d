"""`transformers.Trainer` with our optimizer, throughput, bits per byte and whole checkpoints."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import AutocastKwargs, recursively_apply
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PrinterCallback
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import ProgressCallback as LibraryProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import HubStrategy, SchedulerType, rotate_checkpoints

from hf_gpt import compat
from hf_gpt.allocator import keeps_freed_memory
from hf_gpt.data.fingerprint import stream_fingerprint
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.data.samplers import LengthGroups
from hf_gpt.data.streaming import WindowStream
from hf_gpt.data.targets import has_targets, warn_without_targets
from hf_gpt.errors import ConfigError
from hf_gpt.files.checkpoint_parts import STREAM_POSITION_NAME, Needs, needs_of, read_json
from hf_gpt.files.checkpoints import INCOMPLETE, atomic_directory, explains_write_errors
from hf_gpt.terminal import safe_output
from hf_gpt.training.distributed.sharding import (
    keep_name,
    load_weights,
    own_class,
    reshard,
    shard_optimizer_state,
    tied_once,
    whole,
    whole_state_dict,
)
from hf_gpt.training.monitoring.callbacks import OrderOfEpochCallback, ProgressCallback
from hf_gpt.training.monitoring.cost_model import model_flops_per_token
from hf_gpt.training.monitoring.likelihood import takes_skip_logits
from hf_gpt.training.monitoring.mfu import measured_peak_flops
from hf_gpt.training.monitoring.nonfinite import NonFiniteError, StepRecorder, anywhere, describe_stop
from hf_gpt.training.monitoring.throughput import ThroughputMeter
from hf_gpt.training.monitoring.trainability import check_trainable, warn_if_idle, warn_if_skipped
from hf_gpt.training.optim.ema import WeightAverageCallback
from hf_gpt.training.optim.muon_adamw import build_muon_adamw, decayed_parameter_names
from hf_gpt.training.resumption.resumable import ResumableTrainer
from hf_gpt.training.saving import generation_cache, saves_sharded_optimizer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


class HfGptTrainer(ResumableTrainer):
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
        with saves_sharded_optimizer(training_args):
            super().__init__(*args, **kwargs)
        if self.args.is_sharded and not getattr(self.model, "is_distributed_loading_by_transformers", False):
            raise ConfigError("--tensor_parallel_size and --fsdp_size need a model that sharding.shard_model sharded.")
        if self.args.is_sharded:
            # A cast of a block's weights that autocast keeps from the first pass takes their gradient away.
            self.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
        self.eval_num_bytes = eval_num_bytes
        self.is_language_model = is_language_model
        self.meter = ThroughputMeter()
        self._recorder = StepRecorder()
        self._stream = self.train_dataset if isinstance(self.train_dataset, WindowStream) else None
        self._batches_taken = 0
        self._random_state_from: str | None = None
        if self._stream is not None:
            self._epoch_ends.is_stream = True
            if self.args.dataloader_num_workers:
                raise ConfigError(
                    "--dataloader_num_workers must be 0 with --streaming: workers know no common position."
                )
            # The position says where to go on; Trainer would read and drop all batches up to there.
            self.args.ignore_data_skip = True
        if self.is_deepspeed_enabled and self.args.optimizer == "muon" and self.optimizer is None:
            raise ConfigError(
                "--optimizer muon works on whole matrices, which DeepSpeed does not keep. Use --optimizer adamw, or "
                "shard by --accelerate fsdp2."
            )
        self._row_length = 0
        self._average: WeightAverageCallback | None = None
        if self.args.ema_decay is not None:
            if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
                raise ConfigError("--ema_decay does not work with FSDP of version 1. Set fsdp_version: 2.")
            if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
                raise ConfigError(
                    "--ema_decay does not work with DeepSpeed ZeRO-3, which shards weights in a way of its own. "
                    "Use --accelerate zero2 or fsdp2."
                )
            self._average = WeightAverageCallback(self.args.ema_decay)
            self.add_callback(self._average)
        self.add_callback(OrderOfEpochCallback())
        self._staging_dir: Path | None = None
        self._eval_nats = 0.0
        self._eval_targets = 0.0
        self._step_has_targets, self._steps_without_targets = True, 0
        self._takes_skip_logits = takes_skip_logits(self.model)
        for library_callback in (LibraryProgressCallback, PrinterCallback):
            if any(isinstance(callback, library_callback) for callback in self.callback_handler.callbacks):
                self.remove_callback(library_callback)
                self.add_callback(ProgressCallback())

    # Optimizer and schedule

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.args.optimizer == "muon":
            self.optimizer = build_muon_adamw(
                self.model if model is None else model,
                learning_rate=self.args.learning_rate,
                muon_learning_rate=self.args.muon_learning_rate,
                weight_decay=self.args.weight_decay,
                momentum=self.args.muon_momentum,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
            )
        if self.optimizer is None and self.args.tensor_parallel_size > 1:
            # The library would part the groups by what is in shards, which no other number of processes could resume.
            if not self.args.optim.startswith("adamw_torch"):
                raise ConfigError(f"--optim {self.args.optim} does not work with tensor parallelism. Leave it out.")
            decayed = set(self.get_decay_parameter_names(self.model))
            groups = [
                {
                    "params": [
                        p for n, p in self.model.named_parameters() if p.requires_grad and (n in decayed) is decays
                    ],
                    "weight_decay": self.args.weight_decay if decays else 0.0,
                }
                for decays in (True, False)
            ]
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            options = {"lr": self.args.learning_rate, "betas": betas, "eps": self.args.adam_epsilon}
            self.optimizer = torch.optim.AdamW(groups, foreach=False, **options)
        return super().create_optimizer(model)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return decayed_parameter_names(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        given = self.args.lr_scheduler_kwargs
        if self.args.lr_scheduler_type == SchedulerType.WARMUP_STABLE_DECAY:
            # The library's schedule has no default for the length of its decay.
            defaults = {"num_decay_steps": self.args.get_decay_steps(num_training_steps), "decay_type": "linear"}
            self.args.lr_scheduler_kwargs = {**defaults, **(given or {})}
        try:
            return super().create_scheduler(num_training_steps, optimizer)
        finally:
            self.args.lr_scheduler_kwargs = given

    # Examples and their order

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> torch.utils.data.DataLoader:
        # The library leaves out the last rows of an evaluation too, whose figures would be those of the others.
        former = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = is_training and (former or self.needs_whole_batches)
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = former

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return LengthGroups(sampler.lengths, sampler.batch_size, seed)
        return sampler

    def _prepare_for_training(self, max_steps: int, *args: Any, **kwargs: Any):
        prepared = super()._prepare_for_training(max_steps, *args, **kwargs)
        if self.is_world_process_zero() and not self.args.dry_run:
            warn_if_idle(self, max_steps)
        return prepared

    # Throughput

    def train(self, *args: Any, **kwargs: Any):
        check_trainable(self.model)
        self.meter = ThroughputMeter()
        self._batches_taken = 0
        # The optimizer and the average would take what an evaluation has gathered for weights, and train copies.
        reshard(self.model)
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
            self.meter.add(inputs["input_ids"].numel() * self.args.data_parallel_size)
            self._row_length = inputs["input_ids"].shape[-1]
        if self.accelerator.sync_gradients:
            self.meter.add_step()
        loss = super().training_step(model, inputs, num_items_in_batch)
        takes_none = self.accelerator.scaler is None and not self.is_deepspeed_enabled
        if not self._step_has_targets and self.accelerator.sync_gradients and takes_none:
            # Weights would decay, and momentum move them. Optimizers pass over parameters without a gradient.
            model.zero_grad(set_to_none=True)
            if self._average is not None:
                self._average.skips_next = True
        self._recorder.add(inputs, loss)
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs) -> Any:
        if self.label_smoother is not None:
            keep_name(self.accelerator.unwrap_model(model))
        if not return_outputs and self._nobody_reads_logits():
            inputs = {"skip_logits": "auto", **inputs}
        return super().compute_loss(model, inputs, return_outputs, **kwargs)

    def _nobody_reads_logits(self) -> bool:
        reads = (
            type(self).compute_loss is not HfGptTrainer.compute_loss or self.compute_loss_func or self.label_smoother
        )
        return self._takes_skip_logits and not reads

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._add_progress(logs)
        super().log(logs, start_time)

    def _add_progress(self, logs: dict[str, float]) -> None:
        """Puts speed, time left and steps that were dropped into a log entry of training."""
        logs["tokens_per_second"] = round(self.meter.read(), 1)
        logs["eta_seconds"] = round(self.meter.seconds_left(self.state.max_steps - self.state.global_step), 3)
        if self._row_length and getattr(self.model, "config", None) is not None:
            logs["mfu"] = round(self._utilisation(logs["tokens_per_second"]), 4)
        if self._recorder.skipped:
            logs["skipped_steps"] = self._recorder.skipped
        if self._steps_without_targets:
            logs["steps_without_labels"] = self._steps_without_targets
        if self._stream is not None:
            logs.update(self._stream.cuts.to_log())

    def _utilisation(self, tokens_per_second: float) -> float:
        with self.meter.paused():
            peak = measured_peak_flops(self.args.device.type, self._compute_dtype())
        flops = model_flops_per_token(self.model, self._row_length)
        return tokens_per_second * flops / (peak * self.args.world_size)

    def _compute_dtype(self) -> torch.dtype:
        if self.args.bf16 or self.args.fp16:
            return torch.bfloat16 if self.args.bf16 else torch.float16
        return next(self.model.parameters()).dtype

    # Losses and gradients that are not finite

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # Called once before each step of the optimizer, with the norm over all processes.
        grad_norm = super()._get_grad_norm(model, grad_norm)
        if isinstance(grad_norm, DTensor):
            grad_norm = grad_norm.full_tensor()
        # The loss scaler of float16 expects infinite gradients and leaves such steps out by itself. But a loss that is
        # no number may come with a gradient of zero. DeepSpeed has taken its step by now.
        norm = 0.0 if grad_norm is None else float(grad_norm)
        is_bad = anywhere(self._recorder.has_bad_loss, self.accelerator)
        if is_bad or (self.accelerator.scaler is None and not math.isfinite(norm)):
            step = self.state.global_step + 1
            if self.args.nan_action == "stop":
                path = self._recorder.save(Path(self.args.output_dir), step, self.args.process_index)
                raise NonFiniteError(describe_stop(step, self._recorder.losses, norm, path))
            # Optimizers pass over parameters without a gradient, and so change neither them nor their state.
            model.zero_grad(set_to_none=True)
            self._recorder.skipped += 1
            if self._average is not None:
                self._average.skips_next = True
        self._recorder.clear()
        return grad_norm

    # Evaluation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with safe_output(), self.meter.paused(), self.averaged_weights():
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any):
        self._eval_nats = self._eval_targets = 0.0
        if self.args.tensor_parallel_size > 1:
            self.gather_function = self._gather_batches
        # Smoothing is a means of training; a smoothed loss is not a likelihood of the text.
        smoother, self.label_smoother = self.label_smoother, None
        try:
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        finally:
            self.label_smoother = smoother
        if not self.is_language_model and not self.has_token_labels:
            return output
        totals = torch.tensor([self._eval_nats, self._eval_targets], dtype=torch.float32, device=self.args.device)
        totals = self.accelerator.reduce(totals, reduction="sum") / self.args.tensor_parallel_size
        nats, targets = totals.tolist()
        if targets:
            output.metrics[f"{metric_key_prefix}_loss"] = nats / targets
            if self.eval_num_bytes:
                output.metrics[f"{metric_key_prefix}_bits_per_byte"] = nats / math.log(2) / self.eval_num_bytes
        return output

    def _gather_batches(self, tensors: Any) -> Any:
        """As `gather_for_metrics`; the batch that a tensor-parallel group has in common counts once."""

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            sizes = (self.args.data_parallel_size, self.args.tensor_parallel_size, -1)
            return self.accelerator.gather(tensor).unflatten(0, sizes)[:, 0].flatten(0, 1)

        gathered, state = recursively_apply(gather, tensors), self.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder > 0:
            gathered = recursively_apply(lambda tensor: tensor[: state.remainder], gathered)
        return gathered

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
            self._eval_nats += loss.item() * divisor if targets else 0.0
            self._eval_targets += targets
        return loss, logits, labels

    def _count_targets(self, labels: torch.Tensor) -> int:
        """How many labels the loss is the mean over."""
        return int(((labels if self.has_token_labels else labels[..., 1:]) != IGNORE_INDEX).sum())

    # Position in a stream

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        self._batches_taken += len(batches)
        self._step_has_targets = not batches or has_targets(batches, num_items)
        if not self._step_has_targets:
            self._steps_without_targets += 1
            if self._steps_without_targets == 1:
                warn_without_targets(self.state.global_step + 1)
            # Divided by 0, the loss would be NaN.
            num_items = None if num_items is None else num_items + 1
        if self._random_state_from is not None:
            # The loader drew a number when it began, which in the straight run came before the checkpoint.
            compat.load_random_state(self, self._random_state_from)
            self._random_state_from = None
        return batches, num_items

    def _stream_position(self) -> dict[str, Any]:
        rows_of_a_batch = compat.train_batch_size(self) * self.args.data_parallel_size
        return self._stream.state_dict(self._batches_taken * rows_of_a_batch)

    def _save_stream_position(self, folder: Path) -> None:
        (folder / STREAM_POSITION_NAME).write_text(json.dumps(self._stream_position()), encoding="utf-8")

    def train_fingerprint(self, checkpoint: Path | None) -> str | None:
        if self._stream is None:
            return super().train_fingerprint(checkpoint)
        position = self._stream_position() if checkpoint is None else read_json(checkpoint / STREAM_POSITION_NAME)
        self._stream.check_position(position)
        return stream_fingerprint(self._stream.documents, position["documents"])

    def _load_stream_position(self, folder: Path) -> None:
        self._stream.load_state_dict(read_json(folder / STREAM_POSITION_NAME))
        self._random_state_from = str(folder)

    def needs(self) -> Needs:
        return needs_of(self.args, stream=self._stream is not None)

    # Averaged weights

    def averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has the averaged weights, if there are any."""
        if self._average is None or self._average.average is None:
            return contextlib.nullcontext()
        return self._average.average.applied(self.model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # Trainer calls itself for checkpoints, which go on from the weights as they are.
        with contextlib.nullcontext() if _internal_call else self.averaged_weights():
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.is_sharded:
            # Whole tensors, so that another number of processes can go on.
            state = whole(self.optimizer.state_dict(), keep=self.args.should_save)
            if self.args.should_save:
                torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
                torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)
        else:
            super()._save_optimizer_and_scheduler(output_dir)
        if self._average is not None:
            self._average.average.save(Path(output_dir), writes=self.args.should_save)
        if self._stream is not None and self.args.should_save:
            self._save_stream_position(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._average is not None and checkpoint is not None:
            self._average.load(self.model, Path(checkpoint))
        if self._stream is not None and checkpoint is not None:
            self._load_stream_position(Path(checkpoint))

    def _load_optimizer_state(self, checkpoint: str) -> None:
        if not self.args.is_sharded:
            super()._load_optimizer_state(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(shard_optimizer_state(state, self.optimizer))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.args.is_sharded:
            load_weights(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self.args.is_sharded:
            load_weights(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()
        if self._average is not None:
            self._average.average.load(Path(self.state.best_model_checkpoint))

    # Checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging_dir is None else str(self._staging_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.meter.paused():
            uploads_folder = self.args.push_to_hub and self.args.hub_strategy in (
                HubStrategy.CHECKPOINT,
                HubStrategy.ALL_CHECKPOINTS,
            )
            if uploads_folder:
                # The upload goes on in the background, so its folder must not be renamed meanwhile.
                super()._save_checkpoint(model, trial)
            else:
                self._save_whole_checkpoint(model, trial)

    def _save_whole_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = Path(super()._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        final, staging = run_dir / name, run_dir / f".{name}{INCOMPLETE}"
        # Every process writes into the folder; only one may empty it before and move it after.
        context = atomic_directory(final) if self.is_world_process_zero() else contextlib.nullcontext(staging)
        with explains_write_errors(final), context as folder:
            self.accelerator.wait_for_everyone()
            # Trainer writes into a subfolder of the run's folder, named as the checkpoint.
            self._staging_dir = folder
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging_dir = None
            # Others may still be writing theirs.
            self.accelerator.wait_for_everyone()
            written = folder / name
            if self.is_world_process_zero():
                if self.state.best_model_checkpoint == str(written):
                    self.state.best_model_checkpoint = str(final)
                    self.state.save_to_json(str(written / "trainer_state.json"))
                for path in written.iterdir():
                    path.rename(folder / path.name)
                written.rmdir()
            self.accelerator.wait_for_everyone()
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # A tied weight is saved once, under its other name.
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.is_sharded and state_dict is None:
            with whole_state_dict(self.model, keep=self.args.should_save) as gathered:
                return self._save(output_dir, gathered) if self.args.should_save else None
        if state_dict is not None:
            state_dict = tied_once(self.model, state_dict)
        with own_class(self.model), generation_cache(self.model):
            return super()._save(output_dir, state_dict)
