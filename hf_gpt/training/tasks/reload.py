"""Checks a fine-tuned checkpoint in a fresh process: whether it predicts there as it did before it was saved."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.monitoring.reload_check import run_in_fresh_process


@dataclass(frozen=True)
class TaskReloadRequest:
    """What the fresh process is to do.

    Attributes:
        checkpoint: Folder of the model or adapter, and of its tokenizer.
        task_args: `TaskArguments` as a mapping.
        names: Names of the classes or tags; None for tasks without.
        examples: What predictions are asked for.
        batch_size: Rows evaluated at once.
        trust_remote_code: Whether code in the checkpoint may run.
        bf16, fp16: The precision of the evaluation that the predictions are compared with: long texts part at the first
            near tie.
    """

    checkpoint: str
    task_args: Mapping[str, Any]
    names: Sequence[str] | None
    examples: Sequence[Mapping[str, Any]]
    batch_size: int
    trust_remote_code: bool = False
    bf16: bool = False
    fp16: bool = False


def check_in_fresh_process(request: TaskReloadRequest) -> list[Any]:
    """The predictions of the checkpoint, one for each example, made in a Python process of its own.

    Raises:
        CheckpointError: the checkpoint does not load or does not run there; the message ends with its error.
    """
    return run_in_fresh_process("hf_gpt.training.tasks.reload", asdict(request))["predictions"]


def run_check(request: TaskReloadRequest) -> list[Any]:
    """Loads the checkpoint by its Auto class and predicts."""
    import peft
    import transformers

    from hf_gpt.data.examples import Example
    from hf_gpt.training.tasks import make_task
    from hf_gpt.training.tasks.trainer import TaskTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    task = make_task(TaskArguments(**request.task_args))
    if request.names is not None:
        task.names = list(request.names)
        task.ids = {name: index for index, name in enumerate(task.names)}
    options = {"trust_remote_code": request.trust_remote_code}
    if (Path(request.checkpoint) / "adapter_config.json").is_file():
        auto_class = getattr(peft, task.auto_class.replace("AutoModel", "AutoPeftModel"))
    else:
        auto_class = getattr(transformers, task.auto_class)
    model = auto_class.from_pretrained(request.checkpoint, **options)
    processing_class = getattr(transformers, task.processing_class).from_pretrained(request.checkpoint, **options)
    examples = [Example(example) for example in request.examples]
    rows = task.encode(examples, processing_class, is_training=False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = HfGptTrainingArguments(
            output_dir=folder,
            per_device_eval_batch_size=request.batch_size,
            bf16=request.bf16,
            fp16=request.fp16,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = TaskTrainer(
            task=task,
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=rows,
            eval_examples=examples,
            processing_class=processing_class,
        )
        trainer.evaluate()
    return trainer.predictions


def main(argv: Sequence[str] | None = None) -> int:
    """Reads a request from the file named on the command line and prints the predictions as one line of JSON."""
    (path,) = sys.argv[1:] if argv is None else argv
    request = TaskReloadRequest(**json.loads(Path(path).read_text(encoding="utf-8")))
    print(json.dumps({"predictions": run_check(request)}))
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main, prints_result=True))
