"""What a task changes of a tokenizer and model that were there before, said before training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.arguments.task import TaskArguments


if TYPE_CHECKING:
    from hf_gpt.training.tasks.base import Task


def describe_changes(task: "Task", new_tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Lines on what becomes of a tokenizer and model that were there before."""
    notes = [("note", note) for note in task.notes()]
    if not new_tokens:
        return notes
    added = f"adds {len(new_tokens)} tokens with new embeddings: {', '.join(new_tokens)}"
    return [("vocabulary", f"no chat template in the tokenizer, so {task.args.task} {added}"), *notes]


def find_new_tokens(processing_class: Any, model_args: ModelArguments, task_args: TaskArguments) -> list[str]:
    """Tokens that a tokenizer has and the one of the model that training began from has not, in the order of their ids.

    A run that goes on finds the same as the one before.
    """
    from hf_gpt.errors import CheckpointError
    from hf_gpt.training.model import load_tokenizer
    from hf_gpt.training.tasks.base import tokenizer_of

    source = task_args.tokenizer_name or model_args.model_name_or_path
    if source is None or model_args.model_name_or_path is None or task_args.task != "dialogue":
        return []
    try:
        known = load_tokenizer(str(source), model_args).get_vocab()
    except CheckpointError:
        return []
    vocabulary = tokenizer_of(processing_class).get_vocab()
    return sorted(vocabulary.keys() - known.keys(), key=vocabulary.get)


def generation_defaults(model: Any) -> dict[str, Any]:
    """What the generation config of a model says, other than the library's defaults."""
    config = getattr(model, "generation_config", None)
    return {} if config is None else {k: v for k, v in config.to_diff_dict().items() if k != "transformers_version"}


def print_changed_defaults(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Prints which defaults of `generate` a model had and has no longer, since predictions are made by others."""
    names = [name for name, value in before.items() if after.get(name) != value]
    if names:
        changed = ", ".join(f"{name} {before[name]} is now {after.get(name, 'unset')}" for name in names)
        print(f"defaults          of generate, as in the run's predictions: {changed}")
