"""The tasks of `hf-gpt finetune`, one kind a file, found by name without importing PyTorch."""

import importlib
from typing import TYPE_CHECKING

from hf_gpt.training.arguments import TaskArguments


if TYPE_CHECKING:
    from hf_gpt.training.tasks.base import Task


TASKS = {
    "classification": "classification.Classification",
    "token_classification": "token_classification.TokenClassification",
    "question_answering": "question_answering.QuestionAnswering",
    "summarization": "writing.Summarization",
    "translation": "writing.Translation",
    "closed_book_qa": "writing.ClosedBookQa",
    "dialogue": "dialogue.Dialogue",
}


def make_task(task_args: TaskArguments) -> "Task":
    """The task that the arguments name."""
    module, _, name = TASKS[task_args.task].partition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)(task_args)
