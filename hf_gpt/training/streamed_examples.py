"""`hf-gpt finetune --streaming`: examples of a task that are read and encoded while training, in constant memory."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from hf_gpt.data.examples import Example, read_examples, sample_file, select_columns
from hf_gpt.data.hub_examples import check_dataset_options, find_validation_split
from hf_gpt.data.sources import Malformed, Source, open_dataset, open_table
from hf_gpt.data.streaming import DocumentStream, WindowStream, one_pass
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.training.tasks.base import Task
from hf_gpt.training.training_arguments import HfGptTrainingArguments


# Examples that are encoded together where their order is kept.
ENCODED_TOGETHER = 256


class ExampleStream(WindowStream):
    """Model inputs made of a stream of examples, the same that `task.encode` makes of all of them.

    The task knows what it has to from `learn`; `shuffle_seed` is as for `WindowStream`.
    """

    def __init__(self, documents: DocumentStream, task: Task, processing_class: Any, shuffle_seed: int | None = None):
        super().__init__(documents, shuffle_seed)
        self.task = task
        self.processing_class = processing_class
        self.cuts = task.cuts["training"]

    def encode(self, window: list[Example]) -> datasets.Dataset:
        return self.task.encode(window, self.processing_class, is_training=True)


def read_streamed(
    task: Task, training_args: HfGptTrainingArguments
) -> tuple[DocumentStream, int | None, list[Example]]:
    """Opens the examples to train on and reads those to validate on; the task learns its classes, `max_steps` is set.

    Files are read once before training where classes are not named or `max_steps` is left out.

    Returns:
        The examples to train on, their number if they were counted, and the examples to validate on.

    Raises:
        ConfigError: options that do not go together, or what cannot be known of a stream.
        CorpusError: examples that are not there or cannot be used.
    """
    args = task.args
    check_streaming(task, training_args)
    sources = _open_sources(task)
    window_size = args.shuffle_buffer_size or ENCODED_TOGETHER
    documents = DocumentStream(sources, skip_malformed=args.malformed_rows == "skip", window_size=window_size)
    validation = _read_validation(task)
    reads_before = training_args.max_steps <= 0
    if task.classes_option is not None and args.class_names is None:
        column = task.columns[task.classes_option]
        named = sources[0].classes.get(column)
        args.class_names = None if named is None else sorted(named)
        reads_before |= named is None
        if named is None and sources[0].num_bytes is None:
            raise ConfigError(
                f"--streaming: the classes in column {column!r} of {sources[0].name} are known only when "
                "all of it has been read. Name them with --class_names."
            )
    num_examples = 0

    def counted() -> Iterator[Example]:
        nonlocal num_examples
        for example in one_pass(documents):
            num_examples += 1
            yield example

    task.learn(counted() if reads_before else (), validation)
    if training_args.max_steps <= 0:
        _set_steps(training_args, num_examples)
    return documents, num_examples or None, validation


def check_streaming(task: Task, training_args: HfGptTrainingArguments) -> None:
    """Raises `ConfigError` for what a task or examples without a known end do not allow."""
    args = task.args
    check_dataset_options(args)
    if not task.streams:
        raise ConfigError(f"--streaming is for tasks on texts; {args.task} learns from all signals together.")
    if args.dataset_name is None and not args.validation_file:
        raise ConfigError("--streaming needs --validation_file: no held-out part can be sampled from an unread stream.")
    for name in ("held_out_groups", "max_train_samples"):
        if getattr(args, name):
            raise ConfigError(f"--{name} does not go with --streaming: part the files, or set --max_steps.")
    if args.shuffle_buffer_size < 0:
        raise ConfigError(f"--shuffle_buffer_size must not be negative, got {args.shuffle_buffer_size}.")
    if training_args.max_steps <= 0 and args.dataset_name is not None:
        raise ConfigError("--streaming of a data set needs --max_steps: counting its examples would read all of it.")
    if training_args.max_steps <= 0 and not task.one_row_each:
        raise ConfigError(
            f"--streaming of {args.task} needs --max_steps: an example becomes several rows, which are not counted "
            "beforehand."
        )


def _open_sources(task: Task) -> list[Source]:
    args = task.args
    if args.dataset_name is not None:
        return [_open_split(task, args.train_split)]
    paths = [Path(name).expanduser() for name in args.train_file or [sample_file(args.task)]]
    for path in paths:
        if not path.is_file():
            raise CorpusError(f"no such file: {path}. Give the path of a .jsonl, .csv or .parquet file.")
    return [open_table(path, partial(_parse, task), task.columns) for path in paths]


def _open_split(task: Task, split: str) -> Source:
    config_name = task.args.dataset_config_name
    options = {"config_name": config_name, "split": split, "option": "dataset_name"}
    return open_dataset(task.args.dataset_name, partial(_parse, task), task.columns, **options)


def _read_validation(task: Task) -> list[Example]:
    args = task.args
    if args.validation_file:
        return read_examples(args.validation_file, task.columns, limit=args.max_eval_samples)
    split = args.validation_split or find_validation_split(args.dataset_name, args.dataset_config_name)
    if split is None:
        raise ConfigError(
            f"--streaming: {args.dataset_name} has no validation split. Name one with --validation_split, or give a "
            "--validation_file."
        )
    examples: list[Example] = []
    for example in one_pass(DocumentStream([_open_split(task, split)], window_size=ENCODED_TOGETHER)):
        if args.max_eval_samples is not None and len(examples) >= args.max_eval_samples:
            break
        examples.append(example)
    return examples


def _parse(task: Task, row: Any, where: str) -> Example | Malformed:
    if not isinstance(row, Mapping):
        return Malformed(f"{where}: a {type(row).__name__}, not an object of columns")
    try:
        example = select_columns(row, task.columns, where)
        task.check(example)
    except CorpusError as error:
        return Malformed(str(error))
    return example


def _set_steps(training_args: HfGptTrainingArguments, num_examples: int) -> None:
    """Sets `max_steps` to what `num_train_epochs` passes take, and what is done each epoch to each so many steps.

    Passes follow each other without a gap, so a batch may hold the end of one and the start of the next.
    """
    rows = training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.data_parallel_size
    training_args.max_steps = math.ceil(training_args.num_train_epochs * num_examples / rows)
    steps = max(1, round(num_examples / rows))
    for what in ("eval", "logging", "save"):
        strategy = getattr(training_args, f"{what}_strategy")
        if strategy == "epoch":
            setattr(training_args, f"{what}_strategy", type(strategy)("steps"))
            setattr(training_args, f"{what}_steps", steps)
