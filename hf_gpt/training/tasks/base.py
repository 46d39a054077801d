"""What a task is: rows of a file to model inputs, model outputs to predictions, predictions to metrics."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt.data.examples import Example, read_examples, sample_file
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.data.truncation import Cuts
from hf_gpt.training.arguments.task import TaskArguments


if TYPE_CHECKING:
    from hf_gpt.reporting.report import Section


Examples = Sequence[Example]


class Task(ABC):
    """A task. In order: `learn`, `prepare_tokenizer`, `encode`; after a pass over the rows `predictions`, `score`.

    Attributes:
        column_options: Options that name the columns that are read.
        auto_class: Name of the Auto class of its model.
        peft_type: Name of the task in PEFT.
        is_encoder_decoder: Whether what is read goes to an encoder and what is written comes from a decoder.
        main_metric: The metric that sums up how well it is done; higher is better.
        writes: Whether predictions are what the model generates after `prompts`.
        samples: Whether it samples them, rather than taking the likeliest.
        processing_class: Name of the Auto class of its tokenizer or processor.
        streams: Whether rows can be made of a part of the examples, so that the others need not be read before.
        classes_option: The option that names the column of its classes, which must be known before training.
        names, ids: The classes in the order of their ids, and the id of each; empty before `learn`.
        has_token_labels: Whether each token has a class, so that a loss is a mean over tokens.
        one_row_each: Whether an example becomes one row, so that counting examples counts rows.
        loss_function: As `compute_loss_func` of Transformers' Trainer; None leaves the loss to the model.
        predicts_together: Whether a prediction depends on the examples beside its own.
        words: How its metrics cut texts into words, for people; empty where they do not.
        cuts: What `encode` has cut or left out so far, of examples to train on and of those to validate on.
        kept: Indices of the examples that the last `encode` has not left out of validation (`--overlong drop`).
        end_token_ids: Tokens beside the end-of-text token that end what the task lets a model write.
    """

    column_options: Sequence[str]
    auto_class: str
    peft_type: str
    is_encoder_decoder: bool = False
    main_metric: ClassVar[str]
    writes: ClassVar[bool] = False
    samples: ClassVar[bool] = False
    processing_class: ClassVar[str] = "AutoTokenizer"
    streams: ClassVar[bool] = True
    classes_option: ClassVar[str | None] = None
    names: Sequence[str] = ()
    ids: Mapping[str, int] = MappingProxyType({})
    has_token_labels: ClassVar[bool] = False
    one_row_each: bool = True
    loss_function: Callable[..., torch.Tensor] | None = None
    predicts_together: bool = False
    words: str = ""

    def __init__(self, args: TaskArguments):
        self.args = args
        self.cuts = {name: Cuts("rows", "max_length", args.max_length) for name in ("training", "validation")}
        self.kept: list[int] = []
        self.end_token_ids: set[int] = set()

    def start_counting(self, is_training: bool, number: int) -> Cuts:
        """The counts of training or validation, to which so many examples come now; no example is kept yet."""
        cuts = self.cuts["training" if is_training else "validation"]
        cuts.total += number
        self.kept = []
        return cuts

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are read, by the option that names each; an option that is left out names none."""
        named = {name: getattr(self.args, name) for name in self.column_options}
        return {name: column for name, column in named.items() if column is not None}

    @abstractmethod
    def texts(self, example: Example) -> Iterable[str]:
        """The texts of an example, checked; a new tokenizer is trained on them."""

    @abstractmethod
    def encode(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, *, is_training: bool) -> datasets.Dataset:
        """Rows of model inputs. Columns that the model does not take are for `predictions`.

        What is too long is cut, left out or refused as `args.overlong` says, and counted in `cuts`.
        """

    @abstractmethod
    def score(self, predictions: Sequence[Any], examples: Examples) -> dict[str, float]:
        """Metrics of the predictions, of which there is one for each example."""

    def check(self, example: Example) -> None:
        """Raises `CorpusError` for an example that cannot be used; before `learn`, as far as that can be told."""
        list(self.texts(example))

    def learn(self, train: Iterable[Example], validation: Examples) -> None:
        """Takes from the data what the task depends on, such as its classes, and checks every example.

        `train` may be an iterator over a stream, which has checked its examples.

        Raises:
            CorpusError: an example cannot be used; the message names it.
        """
        for example in itertools.chain(train, validation):
            self.check(example)

    def built_in_examples(self) -> list[Example]:
        """The examples that ship."""
        return read_examples([sample_file(self.args.task)], self.columns)

    def make_processing_class(self, train: Iterable[Example]) -> Any:
        """A new tokenizer, or processor with a tokenizer, for these examples."""
        return train_tokenizer(
            (text for example in train for text in self.texts(example)),
            self.args.tokenizer_vocab_size,
            model_max_length=self.args.max_length,
        )

    def check_processing_class(self, processing_class: Any) -> None:  # noqa: B027 any tokenizer will do
        """Looks at one that was loaded, before the examples; raises `ConfigError` where it does not suit the task."""

    def prepare_model(self, model: PreTrainedModel, processing_class: Any) -> None:  # noqa: B027 most tasks need nothing
        """Changes a new model before it is trained."""

    def config_fields(self) -> dict[str, Any]:
        """Fields of the model's config that the task decides: its classes."""
        ids = {name: index for index, name in enumerate(self.names)}
        return {"id2label": dict(enumerate(self.names)), "label2id": ids} if ids else {}

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Adds what the task needs to the tokenizer, which is saved with the model; returns the tokens it added."""
        return []

    def notes(self) -> list[str]:
        """What should be known before training, a line each."""
        return []

    def reduce_logits(self, logits: Any, labels: Any) -> Any:
        """What is kept of a batch's outputs."""
        return logits

    def predictions(self, outputs: Any, examples: Examples, rows: datasets.Dataset) -> list[Any]:
        """Predictions, one for each example, from the reduced outputs for all rows."""
        raise NotImplementedError

    def prompts(self, examples: Examples, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """Token ids after which the model writes its prediction."""
        raise NotImplementedError

    def decode(self, sequences: Any, processing_class: Any) -> list[Any]:
        """Predictions from what the model wrote, rows of token ids."""
        texts = processing_class.batch_decode(sequences, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def describe(self, example: Example) -> str:
        """What the model was asked, for the report."""
        return "\n".join(self.texts(example))

    def show(self, prediction: Any) -> str:
        """A prediction as text, for the report."""
        return prediction if isinstance(prediction, str) else " ".join(map(str, prediction))

    def record(self, example: Example) -> dict[str, Any]:
        """What stands of an example beside its prediction in `predictions.jsonl`."""
        return dict(example)

    def report_sections(
        self, model: PreTrainedModel, processing_class: Any, examples: Examples, folder: Path
    ) -> "list[Section]":
        """Further parts of the report; files that go with them are written into the folder of the run."""
        return []


def tokenizer_of(processing_class: Any) -> PreTrainedTokenizerBase:
    """The tokenizer: that of a processor, or what is one itself."""
    return getattr(processing_class, "tokenizer", processing_class)


def to_rows(rows: Sequence[Mapping[str, Any]]) -> datasets.Dataset:
    """A dataset of model inputs; every token counts in `attention_mask`."""
    return datasets.Dataset.from_list([{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows])


def as_tuple(outputs: Any) -> tuple[np.ndarray, ...]:
    """Outputs of the Trainer's loop as a tuple of arrays, whether the model gave one or several."""
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
