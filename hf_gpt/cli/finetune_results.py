"""What `hf-gpt finetune` leaves: metrics, predictions, the check of the saved model, report and printed lines."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hf_gpt.cli.finetune_data import TaskData
from hf_gpt.cli.next_step import print_next, use_of_model
from hf_gpt.cli.training_parts import write_training_report
from hf_gpt.files.atomic_files import write_json, write_text
from hf_gpt.installation import as_typed
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.monitoring.throughput import format_count
from hf_gpt.training.run import print_lines
from hf_gpt.training.settings import Settings


if TYPE_CHECKING:
    from hf_gpt.data.examples import Example
    from hf_gpt.reporting.report import Section
    from hf_gpt.training.tasks.base import Task
    from hf_gpt.training.tasks.trainer import TaskTrainer


# Examples whose predictions are shown in the report.
SHOWN_EXAMPLES = 6
# Examples whose predictions are made again by the saved model, and the share that must be the same. Batches are others,
# so in low precision near ties fall otherwise, and a long text parts at the first of them.
RELOADED_EXAMPLES = 32
SAME_SHARE, SAME_LONG_SHARE = 0.8, 0.3


def write_results(trainer: "TaskTrainer", data: TaskData, metrics: Mapping[str, Any], output_dir: Path) -> None:
    """Writes `metrics.json`, and `predictions.jsonl` with the validation examples."""
    write_json(output_dir / "metrics.json", metrics)
    if trainer.predictions is not None:
        pairs = zip(data.validation_examples, trainer.predictions, strict=True)
        rows = ({**data.task.record(example), "prediction": prediction} for example, prediction in pairs)
        lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        write_text(output_dir / "predictions.jsonl", "".join(lines))


def count_same_after_reloading(
    trainer: "TaskTrainer", data: TaskData, model_args: ModelArguments, path: Path
) -> tuple[int, int]:
    """Of how many examples the saved model predicts the same in a fresh process, and of how many it was asked."""
    from hf_gpt.training.monitoring import reload_check
    from hf_gpt.training.tasks.reload import predict_again

    if trainer.predictions is None:
        return 0, 0
    before = trainer.predictions[:RELOADED_EXAMPLES]
    after = reload_check.in_fresh_process(
        predict_again,
        checkpoint=str(path),
        task_args=asdict(data.task.args),
        names=data.task.names,
        examples=data.validation_examples[: None if data.task.predicts_together else RELOADED_EXAMPLES],
        batch_size=trainer.args.per_device_eval_batch_size,
        trust_remote_code=model_args.trust_remote_code,
        bf16=trainer.args.bf16,
        fp16=trainer.args.fp16,
    )
    return sum(one == other for one, other in zip(before, after[: len(before)], strict=True)), len(before)


def warn_of_other_predictions(reloaded: tuple[int, int], least_share: float) -> None:
    """Warns where the saved model makes fewer than this share of its predictions again."""
    same, asked = reloaded
    if same < least_share * asked:
        print("warning: they differ by more than rounding: the checkpoint is not what was trained.", file=sys.stderr)


def write_run_report(
    settings: Settings,
    trainer: "TaskTrainer",
    data: TaskData,
    metrics: Mapping[str, Any],
    reloaded: tuple[int, int],
    path: Path,
) -> Path:
    """Writes the report."""
    from hf_gpt.reporting.report import Metric, Sample
    from hf_gpt.training.model import count_parameters
    from hf_gpt.training.monitoring.callbacks import task_metrics

    task = data.task
    parameters, _ = count_parameters(trainer.model)
    scores = {name: value for name, value in task_metrics(metrics).items() if isinstance(value, (int, float))}
    headline = [Metric(name.replace("_", " "), f"{value:.4g}", "validation") for name, value in scores.items()]
    headline += [
        Metric("Validation loss", f"{metrics['eval_loss']:.4f}"),
        Metric("Parameters", format_count(parameters), type(trainer.model).__name__),
    ]
    if reloaded[1]:
        same = f"{reloaded[0]} of {reloaded[1]}"
        headline.append(Metric("Same predictions", same, "checkpoint reloaded in a fresh process"))
    shown = list(zip(data.validation_examples, trainer.predictions or [], strict=False))[:SHOWN_EXAMPLES]
    start = settings.arguments[0].model_name_or_path
    summary = (
        f"{type(trainer.model).__name__} with {format_count(parameters)} parameters, "
        f"{'from scratch' if start is None else f'from {start}'}, on {data.train_description}; evaluated "
        f"on {len(data.validation_examples):,} others."
    )
    if task.words and trainer.predictions is not None:
        summary += f" Words: {task.words}."
    return write_training_report(
        path,
        settings,
        trainer,
        title=f"Fine-tuning: {task.args.task.replace('_', ' ')}",
        summary=summary,
        metrics=headline,
        samples=[
            Sample(f"{task.describe(example)}\n", task.show(prediction), _truth(task, example))
            for example, prediction in shown
        ],
        results=_class_sections(trainer, data),
        cuts=task.cuts,
        sections=task.report_sections(trainer.model, data.processing_class, data.validation_examples, path.parent),
    )


def _truth(task: "Task", example: "Example") -> str:
    """What an example's prediction should have been, if it is a class."""
    from hf_gpt.training.tasks.classification import LabelledTask

    return f"true class: {task.name_of(example)}" if isinstance(task, LabelledTask) else ""


def _class_sections(trainer: "TaskTrainer", data: TaskData) -> "list[Section]":
    """Tables of single classes and of mistakes, if the task is a classification."""
    from hf_gpt.training.tasks.class_report import class_sections
    from hf_gpt.training.tasks.classification import LabelledTask

    task, examples = data.task, data.validation_examples
    if not isinstance(task, LabelledTask) or trainer.predictions is None or not task.probabilities:
        return []
    wanted, texts = [task.name_of(example) for example in examples], [task.describe(example) for example in examples]
    return class_sections(task.names, wanted, trainer.predictions, task.probabilities, texts)


def print_result(
    data: TaskData,
    predictions: Sequence[Any] | None,
    metrics: Mapping[str, Any],
    reloaded: tuple[int, int],
    model_path: Path,
    report: Path,
) -> None:
    """Prints a few predictions, the metrics, what the fresh process found, and where things are."""
    from hf_gpt.training.monitoring.callbacks import task_metrics

    for example, prediction in list(zip(data.validation_examples, predictions or [], strict=False))[:3]:
        print(f"\n{data.task.describe(example)}\n-> {data.task.show(prediction)}")
    lines = [(name, f"{value:.4f}") for name, value in task_metrics(dict(metrics)).items()]
    if data.task.words and predictions is not None:
        lines.append(("words", data.task.words))
    if data.task.args.streaming and (cut := data.task.cuts["training"]):
        lines.append(("cut", f"training: {cut.describe()}"))
    if reloaded[1]:
        lines.append(("reloaded", f"{reloaded[0]} of {reloaded[1]} predictions are the same in a fresh process"))
    print()
    print_lines(print, [*lines, ("checkpoint", str(model_path)), ("report", str(report))])
    is_text = data.task.writes and not data.task.samples
    prompt = data.task.args.prompt_template.replace("{source}", "A short text.") if is_text else "A short text."
    again = f"hf-gpt finetune --config {quote(str(model_path.parent / 'recipe.yaml'))} --seed 1"
    another = as_typed(f"{again} --output_dir {quote(f'{model_path.parent}-seed-1')}")
    print_next(another if data.task.samples else use_of_model(model_path, prompt) or another)
