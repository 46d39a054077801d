"""`hf-gpt finetune`: examples of a task in; trained, evaluated and reloadable model out."""

import itertools
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gpt.cli.finetune_data import TaskData, prepare_data
from hf_gpt.cli.finetune_results import (
    SAME_LONG_SHARE,
    SAME_SHARE,
    count_same_after_reloading,
    print_result,
    warn_of_other_predictions,
    write_results,
    write_run_report,
)
from hf_gpt.cli.training_command import training_command
from hf_gpt.cli.training_parts import describe_time, shard_and_adapt
from hf_gpt.data.truncation import cut_lines, cuts_to_dict
from hf_gpt.errors import ConfigError
from hf_gpt.option_values import check_at_least
from hf_gpt.training.arguments.adapter import PeftArguments
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.run import (
    describe_model,
    final_metrics,
    make_callbacks,
    open_run,
    run_training,
    save_final_model,
    total_steps,
)
from hf_gpt.training.settings import RECIPES, Settings, built_in_recipes
from hf_gpt.training.tasks import RECIPES_OF_TASKS, TASKS, make_task
from hf_gpt.training.tasks import model_changes as task_changes


if TYPE_CHECKING:
    from hf_gpt.training.tasks.base import Task
    from hf_gpt.training.tasks.trainer import TaskTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments


PROG = "hf-gpt finetune"
DESCRIPTION = f"""Trains a model on a task, a checkpoint that is there or a new one, and evaluates it.

  hf-gpt finetune --task classification                          the built-in recipe and sample of a task
  hf-gpt finetune --task classification --train_file train.jsonl --model_name_or_path runs/pretrain
  hf-gpt finetune --config recipe.yaml --learning_rate 1e-3      defaults < recipe < command line

{textwrap.fill("Tasks: " + ", ".join(TASKS) + ". Without --config the recipe of the task's name is used.", 100)}
"""
# Options that the short help shows.
COMMON = (
    "config task train_file dataset_name model_name_or_path use_peft "
    "num_train_epochs learning_rate output_dir resume_from_checkpoint"
)
ARGUMENTS = (ModelArguments, TaskArguments, PeftArguments)


def with_task_recipe(argv: Sequence[str]) -> list[str]:
    """The command line with the recipe of its task in front, unless it names a recipe or no task that has one."""
    task = TaskArguments.task
    for token, after in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        name, _, value = token.partition("=")
        if name == "--config":
            return list(argv)
        if name == "--task":
            task = value or after
    recipe = RECIPES_OF_TASKS.get(task, task)
    return ["--config", recipe, *argv] if task in TASKS and recipe in built_in_recipes() else list(argv)


def finetune(settings: Settings) -> int:
    """Trains, evaluates, saves and reports as the settings say; returns the exit status."""
    from hf_gpt.training.adapters import check_adapter_options, check_new_tokens
    from hf_gpt.training.model import choose_architecture

    model_args, task_args, peft_args, training_args = settings.arguments
    task = make_task(task_args)
    if task.writes:
        task_args.architecture = choose_architecture(model_args, task_args.architecture)
    elif task_args.architecture == "encoder_decoder":
        raise ConfigError(f"--architecture encoder_decoder is for tasks that write, and {task_args.task} does not.")
    check_task_options(task_args, model_args)
    fit_recipe_to_model(settings, training_args.process_index == 0)
    check_adapter_options(peft_args, model_args, training_args, writes=task.writes)
    checkpoint = open_run(settings)
    data = prepare_data(task, model_args, training_args, checkpoint)
    check_new_tokens(peft_args, data.new_tokens)
    model = make_model(settings, data)

    def start() -> "TaskTrainer":
        rows = data.tokenizer.convert_tokens_to_ids(list(data.new_tokens)) if peft_args.use_peft else ()
        options = {"peft_type": task.peft_type, "new_rows": rows}
        adapted = shard_and_adapt(model, data.tokenizer, model_args, peft_args, training_args, **options)
        return make_trainer(adapted, data, training_args)

    return run_training(
        settings,
        training_args,
        checkpoint,
        prog=PROG,
        make_trainer=start,
        describe=lambda trainer: describe_run(trainer, data),
        finish=lambda trainer, output_dir: finish(settings, trainer, data, output_dir),
    )


def make_model(settings: Settings, data: TaskData) -> Any:
    """The model of the task, new or from a checkpoint."""
    from hf_gpt.data.packed_dataset import filler_token_id
    from hf_gpt.training.adapters import quantization_config
    from hf_gpt.training.model import build_model, extend_end_tokens

    model_args, task_args, peft_args, training_args = settings.arguments
    task = data.task
    model = build_model(
        model_args,
        data.tokenizer,
        task_args.max_length,
        training_args.seed,
        auto_class=task.auto_class,
        task_fields=task.config_fields(),
        quantization_config=quantization_config(peft_args, training_args),
    )
    extend_end_tokens(model, task.end_token_ids)
    text_config = model.config.get_text_config()
    if task.auto_class == "AutoModelForSequenceClassification" and text_config.pad_token_id is None:
        # The library's heads find the last token of a text by it.
        text_config.pad_token_id = filler_token_id(data.tokenizer)
    if model_args.model_name_or_path is None:
        task.prepare_model(model, data.processing_class)
    return model


def finish(settings: Settings, trainer: "TaskTrainer", data: TaskData, output_dir: Path) -> None:
    """Evaluates, saves, checks the saved model and reports."""
    from hf_gpt.training.adapters import merge_adapter

    model_args, task_args, peft_args, training_args = settings.arguments
    task, model_path = data.task, output_dir / "model"
    # A run that was resumed at its end has metrics in its checkpoint, but not the predictions behind them.
    predicts = not task.writes or task_args.predict_with_generate
    metrics = final_metrics(trainer, anew=predicts and trainer.predictions is None)
    if peft_args.merge_adapter:
        trainer.model = merge_adapter(trainer.model)
    former = task_changes.generation_defaults(trainer.model)
    save_final_model(trainer, model_path, generation_options(task))
    if training_args.process_index != 0:
        return
    if model_args.model_name_or_path is not None:
        task_changes.print_changed_defaults(former, task_changes.generation_defaults(trainer.model))
    if cuts := cuts_to_dict(task.cuts):
        metrics = {**metrics, "cut": cuts}
    write_results(trainer, data, metrics, output_dir)
    reloaded = count_same_after_reloading(trainer, data, model_args, model_path)
    report = write_run_report(settings, trainer, data, metrics, reloaded, output_dir / "report.html")
    print_result(data, trainer.predictions, metrics, reloaded, model_path, report)
    is_long = task.writes and (training_args.bf16 or training_args.fp16)
    share = 0.0 if peft_args.load_in_4bit else SAME_LONG_SHARE if is_long else SAME_SHARE
    warn_of_other_predictions(reloaded, share)


def check_task_options(task_args: TaskArguments, model_args: ModelArguments) -> None:
    """Raises `ConfigError` for options that cannot be, or would do nothing."""
    check_at_least(task_args, max_length=3)
    if task_args.start_from_counts:
        if model_args.model_name_or_path is not None:
            raise ConfigError("--start_from_counts is for a new model: leave it or --model_name_or_path out.")
        if task_args.task != "classification":
            raise ConfigError(f"--start_from_counts is for --task classification, not for {task_args.task}.")
        if task_args.streaming:
            raise ConfigError("--start_from_counts counts all training texts before training: leave --streaming out.")
    if task_args.held_out_groups and task_args.validation_file:
        raise ConfigError("--held_out_groups and --validation_file do not go together: choose one.")


def fit_recipe_to_model(settings: Settings, is_main: bool) -> None:
    """Drops options of a built-in recipe that are not for the trained model, and says so."""
    import yaml

    from hf_gpt.training.model import leave_out_of_recipe

    if settings.recipe is None or settings.recipe.parent != RECIPES:
        return
    model_args = settings.arguments[0]
    recipe = yaml.safe_load(settings.recipe.read_text(encoding="utf-8"))
    left_out = leave_out_of_recipe(model_args, recipe, settings.own_overrides)
    settings.values.update(config_overrides=model_args.config_overrides, preset=model_args.preset)
    if left_out and is_main:
        model = model_args.model_name_or_path or model_args.model_type
        print(f"Ignoring recipe options that are not for {model}: {', '.join(left_out)}.", file=sys.stderr)


def make_trainer(model: Any, data: TaskData, training_args: "HfGptTrainingArguments") -> "TaskTrainer":
    """The trainer with its callbacks."""
    from hf_gpt.training.monitoring.callbacks import CutsCallback
    from hf_gpt.training.tasks.trainer import TaskTrainer

    return TaskTrainer(
        task=data.task,
        model=model,
        args=training_args,
        train_dataset=data.train_rows,
        eval_dataset=data.validation_rows,
        eval_examples=data.validation_examples,
        processing_class=data.processing_class,
        callbacks=[*make_callbacks(training_args), CutsCallback(data.task.cuts)],
    )


def describe_run(trainer: "TaskTrainer", data: TaskData) -> list[tuple[str, str]]:
    """What is about to happen, as pairs of a name and a line."""
    changes = task_changes.describe_changes(data.task, data.new_tokens)
    return [*_describe_data_and_steps(trainer, data), *changes, *cut_lines(data.task.cuts)]


def _describe_data_and_steps(trainer: "TaskTrainer", data: TaskData) -> list[tuple[str, str]]:
    steps, rows = total_steps(trainer), trainer.get_total_train_batch_size(trainer.args)
    vocabulary, training = f"{len(data.tokenizer):,} tokens in the vocabulary", f"{steps:,} steps of {rows} rows"
    lines = [
        ("task", f"{data.task.args.task}, {data.task.auto_class}"),
        ("examples", f"{data.train_description} to train on, {len(data.validation_examples):,} to validate on"),
    ]
    if data.task.args.streaming:
        passes = "" if data.num_train_examples is None else f": {steps * rows / data.num_train_examples:.1f} passes"
        time = describe_time(trainer, None)
        return [*lines, ("tokenizer", vocabulary), describe_model(trainer), ("training", training + passes), *time]
    lengths = [len(ids) for ids in data.train_rows["input_ids"]]
    return [
        *lines,
        (
            "rows",
            f"{len(lengths):,} of {sum(lengths) / len(lengths):.0f} tokens on average, {max(lengths)} at most; "
            f"{vocabulary}",
        ),
        describe_model(trainer),
        ("training", f"{training}: {steps * rows / len(lengths):.1f} epochs"),
        *describe_time(trainer, steps * rows * sum(lengths) / len(lengths)),
    ]


def generation_options(task: "Task") -> dict[str, Any]:
    """Defaults of `generate` that the saved model has."""
    if not task.writes:
        return {}
    if task.samples:
        # As evaluation samples: `generate` would keep the 50 likeliest.
        samples = {"temperature": task.args.temperature, "top_p": task.args.top_p, "top_k": 0}
        return {"max_new_tokens": task.args.max_new_tokens, "do_sample": True, **samples}
    return {"max_new_tokens": task.args.max_new_tokens, "num_beams": task.args.num_beams, "do_sample": False}


make_parser, main = training_command(
    PROG,
    DESCRIPTION,
    COMMON,
    ARGUMENTS,
    finetune,
    is_shown=lambda recipe: "task" in recipe,
    prepare=with_task_recipe,
)
