"""The data of `hf-gpt finetune`: examples, tokenizer, model inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_gpt.data.truncation import check_usable, count_labelled, count_unread
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.tasks import model_changes as task_changes


if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from hf_gpt.data.examples import Example
    from hf_gpt.training.streamed_examples import ExampleStream
    from hf_gpt.training.tasks.base import Task
    from hf_gpt.training.training_arguments import HfGptTrainingArguments


@dataclass(frozen=True)
class TaskData:
    """What is trained and evaluated on.

    Attributes:
        task: The task, which has seen the examples.
        train_rows: Model inputs, or an endless stream of them.
        validation_rows: The same for validation.
        num_train_examples: How many examples they were made of; None for those of a stream that were not counted.
        validation_examples: Examples that the rows for validation were made of.
        processing_class: What turned examples into tokens: a tokenizer, or a processor that has one.
        new_tokens: Tokens that the task added to a tokenizer which was there before.
    """

    task: "Task"
    train_rows: "datasets.Dataset | ExampleStream"
    validation_rows: "datasets.Dataset"
    num_train_examples: int | None
    validation_examples: "list[Example]"
    processing_class: "PreTrainedTokenizerBase | ProcessorMixin"
    new_tokens: Sequence[str] = ()

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer, which sizes the model."""
        from hf_gpt.training.tasks.base import tokenizer_of

        return tokenizer_of(self.processing_class)

    @property
    def train_description(self) -> str:
        """How many examples are trained on, as far as that is known, and whether they are streamed."""
        count = "" if self.num_train_examples is None else f"{self.num_train_examples:,} "
        if not self.task.args.streaming:
            return f"{count}examples"
        skipped = self.train_rows.documents.state["skipped"]
        return f"{count}streamed examples" + (f" ({skipped} malformed rows skipped)" if skipped else "")


def read_both(task: "Task", seed: int) -> "tuple[list[Example], list[Example]]":
    """The examples to train and to validate on, from a data set, files or the task's sample.

    Raises:
        CorpusError: they cannot be read, or the options do not go together.
    """
    from hf_gpt.data.examples import hold_out_groups, read_examples, split_examples
    from hf_gpt.data.hub_examples import check_dataset_options, read_hub_examples

    args, validation = task.args, None
    check_dataset_options(args)
    columns = dict(task.columns)
    if args.group_column is not None:
        columns["group_column"] = args.group_column
    if args.dataset_name is not None:
        train, validation = read_hub_examples(
            args.dataset_name,
            columns,
            config_name=args.dataset_config_name,
            train_split=args.train_split,
            validation_split=args.validation_split,
        )
    else:
        train = read_examples(args.train_file, columns) if args.train_file else task.built_in_examples()
    if args.held_out_groups:
        return hold_out_groups(train, args.group_column, args.held_out_groups)
    if args.validation_file:
        validation = read_examples(args.validation_file, task.columns, limit=args.max_eval_samples)
    return split_examples(train, args.validation_fraction, seed) if validation is None else (train, validation)


def prepare_data(
    task: "Task",
    model_args: ModelArguments,
    training_args: "HfGptTrainingArguments",
    checkpoint: Path | None,
) -> TaskData:
    """Reads and splits the examples, trains or loads the tokenizer, and encodes.

    Args:
        task: The task, which names its examples.
        model_args: Where a tokenizer may come from.
        training_args: The seed of the split.
        checkpoint: The checkpoint that is resumed from, whose tokenizer is used.
    """
    from hf_gpt.data.streaming import TOKENIZER_CHARACTERS, one_pass
    from hf_gpt.training.model import load_tokenizer
    from hf_gpt.training.streamed_examples import ExampleStream, read_streamed

    task_args, documents = task.args, None
    source = checkpoint or task_args.tokenizer_name or model_args.model_name_or_path
    if source is not None:
        processing_class = load_tokenizer(str(source), model_args, task.processing_class)
        task.check_processing_class(processing_class)
    if task_args.streaming:
        documents, num_examples, validation = read_streamed(task, training_args)
    else:
        train, validation = read_both(task, training_args.seed)
        train, validation = train[: task_args.max_train_samples], validation[: task_args.max_eval_samples]
        num_examples = len(train)
        task.learn(train, validation)

    if source is None:
        shown = train if documents is None else one_pass(documents, TOKENIZER_CHARACTERS)
        processing_class = task.make_processing_class(shown)
    task.prepare_tokenizer(processing_class)
    new_tokens = task_changes.find_new_tokens(processing_class, model_args, task_args)
    if documents is None:
        train_rows = task.encode(train, processing_class, is_training=True)
        check_usable(len(train_rows), task.cuts["training"], "to train on")
        if training_args.dataloader_drop_last:
            rows = training_args.train_batch_size * training_args.data_parallel_size
            count_unread(task.cuts["training"], len(train_rows), rows)
    else:
        shuffle_seed = training_args.seed if task_args.shuffle_buffer_size else None
        train_rows = ExampleStream(documents, task, processing_class, shuffle_seed)
    validation_rows = task.encode(validation, processing_class, is_training=False)
    check_usable(count_labelled(validation_rows), task.cuts["validation"], "to validate on")
    return TaskData(
        task=task,
        train_rows=train_rows,
        validation_rows=validation_rows,
        num_train_examples=num_examples,
        validation_examples=[validation[position] for position in task.kept],
        processing_class=processing_class,
        new_tokens=new_tokens,
    )
