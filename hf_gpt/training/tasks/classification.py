"""Classification of texts or pairs of texts: sentiment, topic, kind of question, entailment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt.data.examples import Example, text_of
from hf_gpt.data.labels import class_names, label_name, label_number
from hf_gpt.data.special_tokens import add_begin_and_end, begin_and_end, tokenize
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.evaluation import compute
from hf_gpt.training.tasks.base import Examples, Task, as_tuple, to_rows
from hf_gpt.training.tasks.naive_bayes import log_count_ratios, start_embeddings_from


# More than these are taken for texts that were named as labels.
_MOST_CLASSES = 100_000


class LabelledTask(Task):
    """A task whose examples have a class, a name or an id from 0 on.

    Attributes:
        takes_probabilities: Whether examples may have the probability of each class instead of one.
        has_probabilities: Whether one of those checked so far does.
    """

    takes_probabilities: ClassVar[bool] = False
    has_probabilities: bool = False
    # Of the class that was predicted last, for each example.
    probabilities: Sequence[float] = ()
    classes_option = "label_column"

    def check(self, example: Example) -> None:
        super().check(example)
        label = example[self.args.label_column]
        is_distribution = self._is_distribution(label)
        self.has_probabilities |= is_distribution
        if self.names or not (is_distribution or label_name(label) is not None):
            self.id_of(example)

    def learn(self, train: Iterable[Example], validation: Examples) -> None:
        names = list(self.args.class_names or self._names_in(train))
        if len(names) < 2:
            raise CorpusError(f"the examples have one class only, {names[0]!r}. Give examples of two or more.")
        self.names = names
        # Also by the one way in which booleans and whole numbers are written.
        self.ids = {way(name): index for way in (label_name, str) for index, name in enumerate(names)}
        super().learn(train, validation)

    def id_of(self, example: Example) -> int:
        """The class of an example, the likeliest of several; raises `CorpusError` where it is none of the classes."""
        label = example[self.args.label_column]
        if self._is_distribution(label) and len(label) == len(self.names):
            return int(np.argmax(label))
        if self.names and (number := self._id_of_label(label)) is not None:
            return number
        classes = f"which is none of the classes {', '.join(self.names[:10])}" if self.names else "not a name or an id"
        raise CorpusError(
            f"{example.position}: column {self.args.label_column!r} is {label!r}, {classes}. Mend the row, or name the "
            "classes with --class_names."
        )

    def name_of(self, example: Example) -> str:
        """The name of the class of an example."""
        return self.names[self.id_of(example)]

    def _id_of_label(self, label: Any) -> int | None:
        """The id that a label is: by its name, or as a number or a truth value where the names are given."""
        name = label_name(label)
        if name is None or name in self.ids:
            return self.ids.get(name)
        if not self.args.class_names or any(label_number(other) is not None for other in self.names):
            return None
        if name in ("false", "true") and len(self.names) == 2:
            return int(name == "true")
        number = label_number(label)
        return number if number is not None and number < len(self.names) else None

    def _names_in(self, examples: Iterable[Example]) -> list[str]:
        labels: set[str] = set()
        for example in examples:
            label = example[self.args.label_column]
            if self._is_distribution(label):
                labels |= set(map(str, range(len(label))))
                continue
            name = label_name(label)
            if name is None:
                self.id_of(example)
            labels.add(name)
            if len(labels) > _MOST_CLASSES:
                raise CorpusError(
                    f"{example.position}: more than {_MOST_CLASSES:,} classes in column {self.args.label_column!r}. Is "
                    "--label_column the right one? If so, name the classes with --class_names."
                )
        return class_names(labels)

    def _is_distribution(self, label: Any) -> bool:
        return self.takes_probabilities and _is_distribution(label)


class Classification(LabelledTask):
    """One class for a text; accuracy and macro F1. It may be learnt from the probability of each class (soft labels).

    `config_overrides` choose how the model reads (`is_causal`) and sums up a text (`classifier_pooling`).
    """

    column_options = ("text_column", "label_column", "text_pair_column")
    auto_class = "AutoModelForSequenceClassification"
    peft_type = "SEQ_CLS"
    main_metric = "accuracy"
    takes_probabilities = True
    _ratios: np.ndarray | None = None

    @property
    def loss_function(self) -> Callable[..., torch.Tensor] | None:
        return class_cross_entropy if self.has_probabilities else None

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        add_begin_and_end(tokenizer)
        return []

    def texts(self, example: Example) -> Iterable[str]:
        columns = [self.args.text_column, self.args.text_pair_column]
        return [text_of(example, column) for column in columns if column is not None]

    def encode(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, *, is_training: bool) -> datasets.Dataset:
        begin, end = begin_and_end(tokenizer)
        parts = [tokenize(tokenizer, column)["input_ids"] for column in zip(*map(self.texts, examples), strict=True)]
        rows = []
        # Each text is cut to its share, so that a long first one does not push out the second.
        share = (self.args.max_length - 1) // len(parts) - 1
        if share < 1:
            raise ConfigError(f"--max_length {self.args.max_length} leaves no token for a text. Raise it.")
        cuts = self.start_counting(is_training, len(examples))
        for index, (example, *ids) in enumerate(zip(examples, *parts, strict=True)):
            lost = sum(max(0, len(text) - share) for text in ids)
            if lost:
                length = 1 + sum(len(text) + 1 for text in ids)
                if not cuts.keeps(self.args.overlong, example.position, length):
                    continue
                cuts.add("rows_cut")
                cuts.add("tokens_cut", lost)
            self.kept.append(index)
            tokens = [begin]
            for text in ids:
                tokens += [*text[:share], end]
            is_distribution = is_training and self.has_probabilities
            label = self._distribution_of(example) if is_distribution else self.id_of(example)
            rows.append({"input_ids": tokens, "labels": label})
        if is_training and self.args.start_from_counts and rows:
            ids, labels = zip(*((row["input_ids"], row["labels"]) for row in rows), strict=True)
            self._ratios = log_count_ratios(ids, labels, len(tokenizer), len(self.names))
        return to_rows(rows)

    def _distribution_of(self, example: Example) -> list[float]:
        """The probability of each class of an example."""
        label = example[self.args.label_column]
        if self._is_distribution(label):
            return [float(probability) for probability in label]
        return [float(index == self.id_of(example)) for index in range(len(self.names))]

    def prepare_model(self, model: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> None:
        if self._ratios is not None:
            start_embeddings_from(model, self._ratios)

    def reduce_logits(self, logits: Any, labels: Any) -> Any:
        probabilities, classes = as_tuple(logits)[0].float().softmax(-1).max(-1)
        return classes, probabilities

    def predictions(self, outputs: Any, examples: Examples, rows: datasets.Dataset) -> list[str]:
        classes, probabilities = as_tuple(outputs)[:2]
        self.probabilities = [float(probability) for probability in probabilities]
        return [self.names[index] for index in classes]

    def score(self, predictions: Sequence[str], examples: Examples) -> dict[str, float]:
        found, wanted = [self.ids[name] for name in predictions], [self.id_of(example) for example in examples]
        macro = compute("f1", found, wanted, average="macro")["f1"]
        return {**compute("accuracy", found, wanted), "macro_f1": macro}


def class_cross_entropy(
    outputs: Mapping[str, torch.Tensor], labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Mean cross-entropy of classes, a scalar, as `compute_loss_func` of Transformers' Trainer.

    Args:
        outputs: With `logits` of shape (batch, classes).
        labels: The class of each, shape (batch,), or the probability of each class, shape (batch, classes).
        num_items_in_batch: Numbers in the labels of all micro-batches of a step. Left out: those of this one.
    """
    losses = torch.nn.functional.cross_entropy(outputs["logits"].float(), labels, reduction="none")
    if num_items_in_batch is None:
        return losses.mean()
    return losses.sum() * (labels.numel() / len(labels)) / num_items_in_batch


def _is_distribution(value: Any) -> bool:
    """Whether a label is the probability of each of two or more classes."""
    if not isinstance(value, (list, np.ndarray)) or len(value) < 2:
        return False
    if not all(isinstance(item, (int, float)) and not isinstance(item, bool) and item >= 0 for item in value):
        return False
    return abs(sum(value) - 1) < 1e-3
