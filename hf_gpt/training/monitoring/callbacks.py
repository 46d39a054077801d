"""Progress on the terminal, and a stop on request that can be resumed from."""

import signal
import sys
import threading
from collections.abc import Mapping

import torch
from tqdm.auto import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback as LibraryProgressCallback

from hf_gpt.data.truncation import Cuts, cuts_to_dict
from hf_gpt.training.monitoring.throughput import format_count, format_duration


class ProgressCallback(TrainerCallback):
    """A progress bar with loss, tokens per second and time left; without a terminal, a line for each log instead."""

    def __init__(self):
        self.bar: tqdm | None = None
        self.evaluation_bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and sys.stderr.isatty() and not args.disable_tqdm:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True, desc="training"
            )

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if self.bar is None:
            return
        if self.evaluation_bar is None:
            total = len(eval_dataloader) if hasattr(eval_dataloader, "__len__") else None
            self.evaluation_bar = tqdm(total=total, leave=False, dynamic_ncols=True, desc="validating")
        self.evaluation_bar.update(1)

    def on_evaluate(self, args, state, control, **kwargs):
        if self.evaluation_bar is not None:
            self.evaluation_bar.close()
            self.evaluation_bar = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        line = describe_log(logs, state.global_step, state.max_steps)
        if self.bar is None:
            if line:
                print(line, file=sys.stderr, flush=True)
        elif _is_of_training(logs):
            postfix = {"loss": f"{logs['loss']:.3f}"} if "loss" in logs else {}
            if "tokens_per_second" in logs:
                postfix["tokens/s"] = format_count(logs["tokens_per_second"])
            self.bar.set_postfix(postfix, refresh=False)
        elif line:
            self.bar.write(line, file=sys.stderr)

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def use_own_progress(trainer: Trainer) -> None:
    """Puts `ProgressCallback` in place of the library's progress bar or printer, if the trainer has one."""
    for library_callback in (LibraryProgressCallback, PrinterCallback):
        if any(isinstance(callback, library_callback) for callback in trainer.callback_handler.callbacks):
            trainer.remove_callback(library_callback)
            trainer.add_callback(ProgressCallback())


def describe_log(logs: dict[str, float], step: int, max_steps: int) -> str:
    """One line for a log entry of training or evaluation; empty for other entries."""
    parts = [f"step {step:>{len(str(max_steps))}}/{max_steps}"]
    if _is_of_training(logs):
        if "loss" in logs:
            parts.append(f"loss {logs['loss']:.4f}")
        if "learning_rate" in logs:
            parts.append(f"learning rate {logs['learning_rate']:.2e}")
        if "tokens_per_second" in logs:
            parts.append(f"{format_count(logs['tokens_per_second'])} tokens/s")
        if "mfu" in logs:
            parts.append(f"MFU {logs['mfu']:.1%}")
        if "skipped_steps" in logs:
            parts.append(f"{logs['skipped_steps']} steps skipped")
        if "rows_left_out" in logs or "rows_cut" in logs:
            parts.append(f"{logs.get('rows_cut', 0):,} rows cut, {logs.get('rows_left_out', 0):,} left out")
        if "eta_seconds" in logs:
            parts.append(f"{format_duration(logs['eta_seconds'])} left")
    elif "eval_loss" in logs:
        parts.append(f"validation loss {logs['eval_loss']:.4f}")
        if "eval_bits_per_byte" in logs:
            parts.append(f"bits per byte {logs['eval_bits_per_byte']:.4f}")
        parts += [f"{name} {text}" for name, text in metric_texts(logs).items()]
    else:
        return ""
    return "  ".join(parts)


def _is_of_training(logs: dict[str, float]) -> bool:
    """Whether a log entry tells of steps: those that updated nothing have no loss."""
    return "loss" in logs or "tokens_per_second" in logs


def task_metrics(logs: dict[str, float]) -> dict[str, float]:
    """The metrics of a task in a log entry of evaluation: all but the loss and the times."""
    other = ("loss", "bits_per_byte", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    metrics = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
    return {name: value for name, value in metrics.items() if name not in other}


def metric_texts(logs: Mapping[str, float], *, with_sizes: bool = False) -> dict[str, str]:
    """The metrics of a task in a log entry as they are shown, numbers alone; one with an interval has it behind it.

    `with_sizes` names the number of texts that a metric was measured on, too.
    """
    metrics = {name: value for name, value in task_metrics(dict(logs)).items() if isinstance(value, (int, float))}
    texts = {}
    for name, value in metrics.items():
        base, _, end = name.rpartition("_")
        if f"{base}_low" in metrics and end in ("low", "high", "error", "texts"):
            continue
        texts[name] = f"{value:.4f}"
        if f"{name}_low" in metrics:
            sizes = f"; {metrics[f'{name}_texts']:,.0f} texts of each kind" if with_sizes else ""
            texts[name] += f" ({metrics[f'{name}_low']:.2f} to {metrics[f'{name}_high']:.2f}{sizes})"
    return texts


class CutsCallback(TrainerCallback):
    """Keeps what of each part of the data was cut or left out in the run's state, as numbers of its first log entry."""

    def __init__(self, parts: Mapping[str, Cuts]):
        self.parts = parts

    def on_train_begin(self, args, state, control, **kwargs):
        numbers = {
            f"{part}_{cause}": number
            for part, found in cuts_to_dict(self.parts).items()
            for cause, number in found.items()
        }
        if numbers and not any(numbers.keys() <= entry.keys() for entry in state.log_history):
            state.log_history.append({**numbers, "step": state.global_step})


class OrderOfEpochCallback(TrainerCallback):
    """Tells the sampler the epoch before it begins.

    Trainer tells the loader that it reads from. Where a run of several processes goes on within an epoch, that is one
    which skips batches, and it hands the number on to the library's random sampler alone.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        if hasattr(train_dataloader, "set_epoch"):
            train_dataloader.set_epoch(int(state.epoch or 0))


class StopOnSignalCallback(TrainerCallback):
    """Ends training after the running step when Ctrl-C or SIGTERM comes, with a checkpoint to resume from.

    A second signal stops at once. Several processes agree on the step: after each one, whether a signal came to any of
    them. There, further signals change nothing: a launcher hands on to its processes what the terminal sent them too.
    """

    def __init__(self):
        # The signal that came.
        self.signal_number: int | None = None
        self._former: dict[int, object] = {}
        self._shared = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.signal_number = None
        self._shared = args.world_size > 1
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._receive)

    def on_step_end(self, args, state, control, **kwargs):
        if self._shared:
            latest = torch.tensor(self.signal_number or 0, device=args.device)
            torch.distributed.all_reduce(latest, torch.distributed.ReduceOp.MAX)
            self.signal_number = latest.item() or None
        if self.signal_number is not None:
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(self, args, state, control, **kwargs):
        # The library takes the end of its loop for that of an epoch. What it would log and evaluate now would stand in
        # the log of the resumed run, and count for early stopping, where the straight run has nothing.
        if self.signal_number is not None and state.epoch % 1 and state.global_step < state.max_steps:
            control.should_log = control.should_evaluate = control.should_save = False

    def on_train_end(self, args, state, control, **kwargs):
        self.restore()

    def restore(self) -> None:
        """Gives the signals back to whom they were taken from."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _receive(self, number, frame):
        known, self.signal_number = self.signal_number is not None, number
        if not self._shared:
            self.restore()
        if not known:
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            once_more = "" if self._shared else " Once more stops at once."
            print(f"\n{name}: stopping after this step and saving a checkpoint.{once_more}", file=sys.stderr)
