"""What a fine-tuned checkpoint predicts once it is loaded again, as `in_fresh_process` asks."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gpt.training.arguments.task import TaskArguments


def predict_again(
    checkpoint: str,
    *,
    task_args: Mapping[str, Any],
    names: Sequence[str],
    examples: Sequence[Mapping[str, Any]],
    batch_size: int,
    trust_remote_code: bool = False,
    bf16: bool = False,
    fp16: bool = False,
) -> list[Any]:
    """The predictions of a fine-tuned model or adapter, loaded from its folder by its Auto class, one for each example.

    `task_args` are `TaskArguments` as a mapping, `names` the classes or tags, if there are any. The precision is that
    of the evaluation that the predictions are compared with: long texts part at the first near tie.
    """
    import peft
    import transformers

    from hf_gpt.data.examples import Example
    from hf_gpt.training.tasks import make_task
    from hf_gpt.training.tasks.trainer import TaskTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    task = make_task(TaskArguments(**task_args))
    task.names = names
    task.ids = {name: index for index, name in enumerate(names)}
    options = {"trust_remote_code": trust_remote_code}
    if (Path(checkpoint) / "adapter_config.json").is_file():
        auto_class = getattr(peft, task.auto_class.replace("AutoModel", "AutoPeftModel"))
    else:
        auto_class = getattr(transformers, task.auto_class)
    model = auto_class.from_pretrained(checkpoint, **options)
    processing_class = getattr(transformers, task.processing_class).from_pretrained(checkpoint, **options)
    asked = [Example(example) for example in examples]
    rows = task.encode(asked, processing_class, is_training=False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = HfGptTrainingArguments(
            output_dir=folder,
            per_device_eval_batch_size=batch_size,
            bf16=bf16,
            fp16=fp16,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = TaskTrainer(
            task=task,
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=rows,
            eval_examples=asked,
            processing_class=processing_class,
        )
        trainer.evaluate()
    return trainer.predictions
