"""`Trainer` whose runs go on from a checkpoint as if they had never stopped, or are refused by name."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState

from hf_gpt import compat
from hf_gpt.data.fingerprint import fingerprint
from hf_gpt.errors import CheckpointError, ConfigError
from hf_gpt.files.checkpoint_parts import Needs, lack_of, needs_of, read_json, read_record
from hf_gpt.files.checkpoints import explains_read_errors, find_checkpoint
from hf_gpt.files.manifest import MANIFEST_NAME, differences, has_manifest
from hf_gpt.training.monitoring.nonfinite import StepRecorder
from hf_gpt.training.resumption import run_record
from hf_gpt.training.resumption.resumed_rates import check_schedule, settings_of, take_effect
from hf_gpt.training.training_arguments import HfGptTrainingArguments


logger = logging.getLogger(__name__)


class EpochEndCallback(TrainerCallback):
    """Knows whether the end of the epoch has been dealt with: its log, evaluation and checkpoint come after a step's.

    Attributes:
        is_over: Whether it has.
        is_stream: Whether the whole run is one epoch, of which the library would count the part since it was resumed.
    """

    def __init__(self):
        self.is_over = self.is_stream = False

    def on_step_end(self, args, state, control, **kwargs):
        if self.is_stream:
            state.epoch = state.global_step / state.max_steps

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.is_over = False

    def on_epoch_end(self, args, state, control, **kwargs):
        self.is_over = True


class ResumableTrainer(Trainer):
    """What `HfGptTrainer` does to resume exactly; docs/guides/resume.md is the contract.

    - A checkpoint is looked through before it is taken, and its run compared with this one.
    - Changed options take effect, which a line says: rates, schedule, settings of the optimizer, cadence.
    - Callbacks with a state (`ExportableState`) go on from it, early stopping among them. What is given to their
      constructors is that of this run.
    - Sums between two logs, and what is due at the end of an epoch, are part of a checkpoint.
    - A run that has ended, by its steps or by early stopping, takes no further step.

    Attributes:
        command_options: Options of a command by dataclass, which are compared too; see `options_of_command`.
        validation_content: What the run is validated on, if it is to be compared.
        history: Changes of options at resumptions, in words.
    """

    args: HfGptTrainingArguments
    _recorder: StepRecorder

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.command_options: dict[str, dict[str, Any]] = {}
        self.validation_content: Any = None
        self.history: list[str] = []
        self._fingerprints: tuple[Any, str | None, str | None] | None = None
        self._checked: str | None = None
        # What is still to be taken up from a checkpoint: its folder and what its record says.
        self._to_take_up: tuple[str, Mapping[str, Any]] | None = None
        self._last_logs: tuple[Any, float | None] = (None, None)
        self._epoch_ends = EpochEndCallback()
        self.add_callback(self._epoch_ends)

    # Before training

    def needs(self) -> Needs:
        """What a checkpoint must hold for this run to go on from it."""
        return needs_of(self.args)

    def check_resume(self, checkpoint: Path) -> list[str]:
        """Looks through a checkpoint and compares its run with this one, before anything is changed.

        Returns:
            Lines to say: what has changed and takes effect.

        Raises:
            CheckpointError: it lacks something, or is of another model.
            ConfigError: it is of another run.
        """
        lack = lack_of(checkpoint, self.needs())
        if lack is not None:
            raise CheckpointError(
                f"--resume_from_checkpoint: {checkpoint} is not a complete checkpoint of this kind of run: it {lack}."
            )
        if hasattr(self.model, "peft_config"):
            run_record.check_adapter(checkpoint, self.model.peft_config[self.model.active_adapters[0]])
        else:
            run_record.check_config(checkpoint, self.model.config)
        record = read_record(checkpoint)
        taken = run_record.compare(record, self._facts(checkpoint), checkpoint)
        step = read_json(checkpoint / "trainer_state.json")["global_step"]
        steps = self.set_initial_training_values(self.args, self.get_train_dataloader())[-1]
        if 0 < steps < step:
            raise ConfigError(
                f"--resume_from_checkpoint: {checkpoint} is at step {step}, and the run is to have {steps}. Raise "
                "--max_steps or --num_train_epochs, or resume from an earlier checkpoint."
            )
        self.history = [*record.get("history", []), *(f"since step {step}: {words}" for words in taken)]
        self._checked = str(checkpoint)
        lines = []
        if not has_manifest(checkpoint):
            lines.append(
                f"{checkpoint} has no {MANIFEST_NAME}, as in earlier versions: damage within a file may go unseen."
            )
        if not record:
            lines.append(f"{checkpoint} says nothing of the options of its run: they are taken to be the same.")
        if taken:
            schedule = run_record.schedule_line(taken, step, steps)
            lines.append(f"Changed since {checkpoint.name}: {'; '.join(taken)}.{schedule}")
        return lines

    def train_fingerprint(self, checkpoint: Path | None) -> str | None:
        """What is trained on; of a stream, up to its present position or that of a checkpoint."""
        return fingerprint(self.train_dataset)

    def _facts(self, checkpoint: Path | None = None) -> run_record.RunFacts:
        is_stream = self._epoch_ends.is_stream
        if self._fingerprints is None or is_stream or self._fingerprints[0] is not self.train_dataset:
            prints = self.train_fingerprint(checkpoint), fingerprint(self.validation_content)
            self._fingerprints = self.train_dataset, *prints
        return run_record.RunFacts(
            kind=type(self.args).__name__,
            options=run_record.options_of(self.args),
            command=self.command_options,
            world_size=self.args.world_size,
            rows_of_a_step=self.get_total_train_batch_size(self.args),
            train_data=self._fingerprints[1],
            validation_data=self._fingerprints[2],
        )

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        checkpoint = None
        if resume_from_checkpoint:
            wanted = "last" if resume_from_checkpoint is True else str(resume_from_checkpoint)
            checkpoint = str(find_checkpoint(wanted, Path(self.args.output_dir), self.needs(), logger.warning))
            if self._checked != checkpoint:
                lines = self.check_resume(Path(checkpoint))
                if self.args.process_index == 0:
                    for line in lines:
                        logger.warning("%s", line)
        else:
            self.history = []
        self._checked = None
        self._to_take_up = None if checkpoint is None else (checkpoint, read_record(Path(checkpoint)))
        # The straight run was not evaluated here.
        evaluates = self.args.eval_on_start and checkpoint is None
        try:
            with compat.evaluates_on_start(self.args, evaluates):
                return super().train(checkpoint, *args, **kwargs)
        finally:
            self._to_take_up = None

    # State

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume, trial):
        progress = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, resume, trial)
        self._recorder.clear()
        self._recorder.skipped = 0
        if resume is not None:
            # The library goes on with the cadence that was.
            self.state.compute_steps(self.args, max_steps)
            self._find_best_checkpoint(Path(resume))
        return progress

    def _find_best_checkpoint(self, checkpoint: Path) -> None:
        """The best checkpoint of a run whose folder was moved lies beside the one that is gone on from."""
        known = read_json(checkpoint / "trainer_state.json").get("best_model_checkpoint")
        if known is None or self.state.best_model_checkpoint is not None:
            return
        moved = checkpoint.parent / Path(known).name
        if moved.is_dir():
            self.state.best_model_checkpoint = str(moved)
        elif self.args.load_best_model_at_end:
            raise CheckpointError(
                f"--load_best_model_at_end: {Path(known).name}, the best so far, is neither at {known} nor beside "
                f"{checkpoint}. Put it back, or go on with --load_best_model_at_end False."
            )

    def _load_callback_state(self) -> None:
        if self.args.restore_callback_states_from_checkpoint:
            super()._load_callback_state()
            return
        left = {
            name: list(states) if isinstance(states, list) else [states]
            for name, states in self.state.stateful_callbacks.items()
        }
        for callback in self.callback_handler.callbacks:
            states = left.get(type(callback).__name__)
            if isinstance(callback, ExportableState) and not isinstance(callback, TrainerControl) and states:
                for name, value in states.pop(0).get("attributes", {}).items():
                    setattr(callback, name, value)

    def _export_callbacks(self) -> None:
        """States as they are now, of the callbacks that there are: the library knows those of the checkpoint alone."""
        callbacks = [*self.callback_handler.callbacks, self.control]
        stateful = [each for each in callbacks if isinstance(each, ExportableState)]
        self.state.stateful_callbacks = TrainerState(stateful_callbacks=stateful).stateful_callbacks

    def progress(self) -> dict[str, Any]:
        """What has been counted and summed up since the last log, in plain types. All processes call it."""
        grad_norm, learning_rate = self._last_logs
        return {
            "loss_sum": self.accelerator.reduce(compat.unlogged_loss(self).detach().clone(), "mean").item(),
            "last_logged": compat.last_logged_step(self),
            "skipped_steps": self._recorder.skipped,
            "epoch_is_over": self._epoch_ends.is_over,
            "grad_norm": None if grad_norm is None else float(grad_norm),
            "learning_rate": learning_rate,
        }

    def restore_progress(self, progress: Mapping[str, Any]) -> None:
        """Goes on from a former `progress`."""
        compat.unlogged_loss(self).add_(progress["loss_sum"])
        compat.set_last_logged_step(self, progress["last_logged"])
        self._recorder.skipped = progress["skipped_steps"]
        self._last_logs = progress["grad_norm"], progress["learning_rate"]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._export_callbacks()
        progress = self.progress()
        facts = self._facts() if self.args.should_save else None
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        with compat.keeps_all_checkpoints(self.args):
            super()._save_checkpoint(model, trial)
        # Others may still be writing theirs.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            run_record.write_record(folder, facts, progress, self.history)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        settings = settings_of(self.optimizer)
        path = Path(checkpoint) / "scheduler.pt"
        with explains_read_errors(Path(checkpoint)):
            check_schedule(self.lr_scheduler, torch.load(path, weights_only=True))
            self._load_optimizer_state(checkpoint)
            take_effect(self.optimizer, self.lr_scheduler, settings)

    def _load_optimizer_state(self, checkpoint: str) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with explains_read_errors(Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def load_random_state(self, checkpoint: str) -> None:
        """Sets the random generators of this process to their state in a checkpoint."""
        self._load_rng_state(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # The library calls it with the first step.
        if checkpoint is None:
            return
        with explains_read_errors(Path(checkpoint)):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        with explains_read_errors(Path(checkpoint)):
            super()._load_scaler(checkpoint)

    # The loop

    def _maybe_log_save_evaluate(self, tr_loss, grad_norm, *args: Any, learning_rate=None, **kwargs: Any) -> None:
        self._last_logs = grad_norm, learning_rate
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, learning_rate=learning_rate, **kwargs)

    def _run_epoch(self, **kwargs: Any) -> None:
        if self._to_take_up is not None:
            over = self._take_up(kwargs["model"], kwargs["trial"], kwargs["ignore_keys_for_eval"], kwargs["start_time"])
            if over:
                # The random state is that after the evaluation.
                kwargs["resume_from_checkpoint"] = None
            if self.control.should_training_stop or self.has_ended():
                self.control.should_training_stop = True
                return
        super()._run_epoch(**kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float):
        if self._to_take_up is not None:
            # The checkpoint was the last step's.
            self._take_up(self.model_wrapped, trial, None, start_time)
        best = self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best is not None:
            for lack in differences(Path(best)):
                raise CheckpointError(
                    f"--load_best_model_at_end: {best}, the best of the run, {lack}. Training is done, and the newest "
                    "checkpoint is whole: --resume_from_checkpoint --load_best_model_at_end False saves that one."
                )
        return super()._finalize_training(trial, num_train_samples, start_time)

    def has_ended(self) -> bool:
        """Whether a run that was taken up has no further step to do."""
        stops = [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
        patience = any(each.early_stopping_patience_counter >= each.early_stopping_patience for each in stops)
        return patience or self.state.global_step >= self.state.max_steps

    def _take_up(self, model: nn.Module, trial: Any, ignore_keys: Any, start_time: float) -> bool:
        """Goes on with sums and counts of the checkpoint; returns whether the end of an epoch was still to be done."""
        (checkpoint, record), self._to_take_up = self._to_take_up, None
        progress = record.get("progress")
        if not progress:
            return False
        self.restore_progress(progress)
        # Where a run ends, so does an epoch, as far as logs and evaluations go.
        if progress["epoch_is_over"] or (self.state.epoch % 1 and not self.has_ended()):
            if self.has_ended():
                # The library loads the random state with the first step, and there is none.
                self._load_rng_state(checkpoint)
            return False
        self._load_rng_state(checkpoint)
        self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
        grad_norm, learning_rate = self._last_logs
        epoch = self.state.epoch - 1
        options = {"learning_rate": learning_rate}
        self._maybe_log_save_evaluate(
            compat.unlogged_loss(self), grad_norm, model, trial, epoch, ignore_keys, start_time, **options
        )
        self._epoch_ends.is_over = False
        return True
