"""What the training commands do alike: from a trainer that is made to a model that is saved."""

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gpt.errors import CorpusError, WorkerError
from hf_gpt.files import checkpoints
from hf_gpt.files.atomic_files import write_text
from hf_gpt.files.checkpoint_parts import needs_of, read_record
from hf_gpt.files.run_lock import claim_run
from hf_gpt.installation import as_typed
from hf_gpt.training.monitoring.step_times import Stretch, time_steps
from hf_gpt.training.monitoring.throughput import format_count
from hf_gpt.training.resumption.run_record import RunFacts, compare, options_of, options_of_command
from hf_gpt.training.settings import Settings, settings_to_yaml


if TYPE_CHECKING:
    from hf_gpt.training.trainer import HfGptTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments


# Settings of `generate` that belong to one way to decode or another.
_WAYS_TO_DECODE = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "num_beams",
    "early_stopping",
    "length_penalty",
)
# Points that a curve of the report has at least, where nobody says otherwise.
LEAST_POINTS = 20
# What belongs to one call of a command, not to the run that its settings describe.
CALL_OPTIONS = ("resume_from_checkpoint", "overwrite_output_dir", "dry_run")


def open_run(settings: Settings, take_over: Callable[[Mapping[str, Any]], None] | None = None) -> Path | None:
    """Checks the folder of the run before any work; returns the checkpoint to resume from, or None.

    `take_over` is called with the record of the run that is resumed, before the settings are compared with it. It sets
    what that run chose and this one leaves open.

    Raises:
        CheckpointError: the folder holds another run, or one that goes on, or the wanted checkpoint is not there, or
            not whole.
        ConfigError: the checkpoint is of a run with options that must stay.
    """
    import datasets
    from transformers.utils import logging as transformers_logging

    *others, training_args = settings.arguments
    is_main = training_args.process_index == 0
    if not is_main or not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
    output_dir = Path(training_args.output_dir)
    resume = training_args.resume_from_checkpoint
    checkpoint = None
    if resume is not None:
        needs = needs_of(
            training_args,
            stream=any(getattr(each, "streaming", False) for each in others),
            has_discriminator=False if settings.values.get("discriminator") == "none" else None,
        )
        checkpoint = checkpoints.find_checkpoint(resume, output_dir, needs, print if is_main else silent)
        record = read_record(checkpoint)
        if take_over is not None:
            take_over(record)
        options = options_of(training_args)
        facts = RunFacts(
            type(training_args).__name__, options, options_of_command(others), world_size=training_args.world_size
        )
        compare(record, facts, checkpoint)
    if not training_args.dry_run and is_main:
        checkpoints.check_output_dir(
            output_dir, overwrite=training_args.overwrite_output_dir, resume=checkpoint is not None
        )
        # From here on: reading and tokenizing may take long.
        claim_run(output_dir)
    return checkpoint


def run_training(
    settings: Settings,
    training_args: "HfGptTrainingArguments",
    checkpoint: Path | None,
    *,
    prog: str,
    make_trainer: Callable[[], "HfGptTrainer"],
    describe: Callable[["HfGptTrainer"], list[tuple[str, str]]],
    finish: Callable[["HfGptTrainer", Path], None],
    stretches: Callable[["HfGptTrainer"], list[Stretch]] | None = None,
) -> int:
    """Does a dry run, or trains, and leaves the rest to `finish`.

    Args:
        settings, training_args, checkpoint: The run, and where it goes on, if it does.
        prog: Name of the command, for the hint how to resume.
        make_trainer: Makes the trainer; data, tokenizer and model are sound when it is called.
        describe: What is about to happen, as pairs of a name and a line.
        finish: Evaluates, saves and reports; given the trainer and the folder of the run.
        stretches: Prepares the trainer of a dry run for `time_steps`; left out: all steps are alike.

    Returns:
        The exit status: 0, or 128 and the number of the signal that stopped the run.
    """
    output_dir = Path(training_args.output_dir)
    is_main = training_args.process_index == 0
    say = print if is_main else silent
    if training_args.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            training_args.output_dir = folder
            trainer = make_trainer()
            print_lines(say, describe(trainer))
            print_lines(say, time_steps(trainer, stretches(trainer) if stretches else [Stretch(total_steps(trainer))]))
        say("Nothing was trained or saved (--dry_run).")
        return 0
    if is_main:
        # Only now that data, tokenizer and model are sound may a former run go.
        checkpoints.start_output_dir(output_dir, resume=checkpoint is not None)
    trainer = make_trainer()
    settings.values["logging_steps"] = log_often(trainer)
    trainer.command_options = options_of_command(settings.arguments[:-1])
    lines = [] if checkpoint is None else trainer.check_resume(checkpoint)
    print_lines(say, describe(trainer))
    for line in lines:
        say(line)
    if is_main:
        write_recipe(settings, prog, output_dir / "recipe.yaml", trainer.history)
    signal_number = train(trainer, checkpoint)
    if signal_number is None and checkpoint is not None and not trainer.meter.steps:
        say(
            f"The run had taken all its {trainer.state.global_step:,} steps: nothing is trained, what is missing is "
            "written. More --max_steps or --num_train_epochs go on with it."
        )
    if signal_number is not None:
        stopped = f"\nStopped at step {trainer.state.global_step} of {trainer.state.max_steps}."
        if training_args.save_only_model:
            say(
                f"{stopped} Its checkpoint holds the weights alone (--save_only_model): the run cannot be gone on with."
            )
        else:
            say(
                f"{stopped} Go on with\n  {as_typed(prog)} --config {shlex.quote(str(output_dir / 'recipe.yaml'))} "
                "--resume_from_checkpoint"
            )
        return 128 + signal_number
    finish(trainer, output_dir)
    return 0


def make_callbacks(training_args: "HfGptTrainingArguments") -> list[Any]:
    """The callbacks of every training command: a stop on request, and early stopping if asked for."""
    from transformers import EarlyStoppingCallback

    from hf_gpt.training.monitoring.callbacks import StopOnSignalCallback

    callbacks: list[Any] = [StopOnSignalCallback()]
    if training_args.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(training_args.early_stopping_patience))
    return callbacks


def describe_model(trainer: "HfGptTrainer") -> tuple[str, str]:
    """The line about the model."""
    from hf_gpt.training.model import count_parameters
    from hf_gpt.training.monitoring.cost_model import count_elements

    parameters, without_embeddings = count_parameters(trainer.model)
    trained = count_elements(parameter for parameter in trainer.model.parameters() if parameter.requires_grad)
    share = "" if trained == parameters else f"{format_count(trained)} of them trained, "
    precision = "bfloat16" if trainer.args.bf16 else "float16" if trainer.args.fp16 else "float32"
    return (
        "model",
        f"{type(trainer.model).__name__.removeprefix('FSDP')}, {format_count(parameters)} parameters "
        f"({format_count(without_embeddings)} without embeddings), {share}{precision} on {trainer.args.device}",
    )


def log_often(trainer: "HfGptTrainer") -> float:
    """Lowers the default steps between logs, so that a short run has `LEAST_POINTS` points or more; returns them."""
    args = trainer.args
    if args.logging_steps == type(args).__dataclass_fields__["logging_steps"].default:
        args.logging_steps = max(1, min(args.logging_steps, total_steps(trainer) // LEAST_POINTS))
    return args.logging_steps


def total_steps(trainer: "HfGptTrainer") -> int:
    """Optimizer steps of the whole run."""
    return trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]


def describe_steps(trainer: "HfGptTrainer") -> str:
    """The steps that the meter has counted, and of a resumed run all steps."""
    counted, steps = trainer.meter.steps, trainer.state.global_step
    return f"{steps:,} steps" if counted == steps else f"{counted:,} of {steps:,} steps, since it was resumed"


def train(trainer: "HfGptTrainer", checkpoint: Path | None) -> int | None:
    """Trains to the end, or until a signal comes; returns the signal's number, or None."""
    from hf_gpt.training.monitoring.callbacks import StopOnSignalCallback

    listeners = [item for item in trainer.callback_handler.callbacks if isinstance(item, StopOnSignalCallback)]
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except CorpusError as error:
        # A row of a stream, which is read while training.
        kept = _describe_kept(_save_before_fault(trainer))
        raise CorpusError(f"{error} The run stopped at step {trainer.state.global_step}; {kept}.") from error
    except RuntimeError as error:
        # PyTorch has no error of its own for it.
        if "DataLoader worker" not in str(error):
            raise
        kept = _describe_kept(checkpoints.last_checkpoint(Path(trainer.args.output_dir)))
        raise WorkerError(
            f"a process that prepares batches died at step {trainer.state.global_step}: {error} Memory may have run "
            f"out: try fewer --dataloader_num_workers. Of the run, {kept}."
        ) from error
    finally:
        for listener in listeners:
            listener.restore()
    signal_number = next((item.signal_number for item in listeners if item.signal_number is not None), None)
    if signal_number is not None and checkpoints.last_checkpoint(Path(trainer.args.output_dir)) is None:
        # It came after the last step, too late for a checkpoint within the loop.
        trainer._save_checkpoint(trainer.model, trial=None)
    return signal_number


def _save_before_fault(trainer: "HfGptTrainer") -> Path | None:
    """Saves a run whose data cannot be read on, where every process has noticed it; returns its newest checkpoint."""
    args, step = trainer.args, trainer.state.global_step
    former = checkpoints.last_checkpoint(Path(args.output_dir))
    all_notice = args.world_size == 1 or args.accelerator_config.dispatch_batches is False
    if not step or not all_notice or (former is not None and former.name == f"checkpoint-{step}"):
        return former
    trainer._save_checkpoint(trainer.model, trial=None)
    return checkpoints.last_checkpoint(Path(args.output_dir))


def _describe_kept(checkpoint: Path | None) -> str:
    if checkpoint is None:
        return "no checkpoint was saved yet"
    return f"{checkpoint.name} is kept: --resume_from_checkpoint"


def final_metrics(trainer: "HfGptTrainer", *, anew: bool = False) -> dict[str, float]:
    """The validation metrics of the trained model, evaluated unless that was done after the last step or `anew`."""
    last = next((entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry), None)
    if (
        not anew
        and last is not None
        and last["step"] == trainer.state.global_step
        and not trainer.args.load_best_model_at_end
    ):
        return last
    return trainer.evaluate()


def save_final_model(trainer: "HfGptTrainer", path: Path, generation_options: Mapping[str, Any]) -> None:
    """Saves model, tokenizer and the defaults of `generate`; the folder appears when it is complete."""
    generation_config = getattr(trainer.model, "generation_config", None)
    if generation_config is not None:
        if "do_sample" in generation_options:
            # Those of the checkpoint that training began from: the library saves no temperature beside greedy decoding.
            fresh = type(generation_config)()
            generation_config.update(**{name: getattr(fresh, name) for name in _WAYS_TO_DECODE if hasattr(fresh, name)})
        generation_config.update(**generation_options)
    context = checkpoints.atomic_directory(path) if trainer.is_world_process_zero() else contextlib.nullcontext(path)
    with checkpoints.explains_write_errors(path), context as folder:
        trainer.save_model(str(folder))
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            # A pickle: nothing that is meant to be shared.
            (folder / "training_args.bin").unlink(missing_ok=True)


def write_recipe(settings: Settings, prog: str, path: Path, history: Sequence[str] = ()) -> None:
    """Writes the settings of the run, so that it can be run again; a comment tells how they have changed under way."""
    from transformers import __version__ as transformers_version

    from hf_gpt.version import __version__

    kept = {name: value for name, value in settings.values.items() if name not in CALL_OPTIONS}
    header = f"Settings of a run of {prog}: hf-gpt {__version__}, transformers {transformers_version}."
    header = "\n".join([header, *history])
    text = settings_to_yaml(Settings(settings.arguments, kept, settings.recipe), header)
    write_text(path, text)


def print_lines(say: Any, lines: Sequence[tuple[str, str]]) -> None:
    """Prints pairs of a name and a line, the lines in one column."""
    width = max([15, *(len(name) + 2 for name, _ in lines)])
    for name, value in lines:
        say(f"{name:<{width}}{value}", flush=True)


def silent(*_: Any, **__: Any) -> None:
    """Stands for print in processes that have nothing to say."""
