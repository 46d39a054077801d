"""The tasks of `hf-gpt finetune`, one kind a file, found by name without importing PyTorch."""

import importlib
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from hf_gpt.training.arguments.task import TaskArguments
    from hf_gpt.training.tasks.base import Task


TASKS = {
    "classification": "classification.Classification",
    "token_classification": "token_classification.TokenClassification",
    "question_answering": "question_answering.QuestionAnswering",
    "summarization": "text_generation.Summarization",
    "translation": "text_generation.Translation",
    "closed_book_qa": "text_generation.ClosedBookQa",
    "dialogue": "dialogue.Dialogue",
    "image_classification": "modalities.MediaClassification",
    "image_generation": "modalities.MediaGeneration",
    "sound_classification": "modalities.MediaClassification",
    "sound_generation": "modalities.MediaGeneration",
}
# Recipes that are not named after their task.
RECIPES_OF_TASKS = {
    "image_classification": "digits",
    "image_generation": "digits_generation",
    "sound_classification": "spoken_digits",
    "sound_generation": "spoken_digits_generation",
}


def make_task(task_args: "TaskArguments") -> "Task":
    """The task that the arguments name."""
    module, _, name = TASKS[task_args.task].partition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)(task_args)
