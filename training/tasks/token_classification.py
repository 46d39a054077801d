"""Classification of words: named entities, parts of speech."""

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_gpt.eval import compute
from hf_gpt.training.errors import CorpusError
from hf_gpt.training.examples import Example, texts_of
from hf_gpt.training.packing import IGNORE_INDEX
from hf_gpt.training.tasks.base import Task, as_tuple, begin_and_end, class_fields, to_rows, tokenize


OUTSIDE = "O"


class TokenClassification(Task):
    """A tag for each word; F1 of whole entities and accuracy of tags.

    The tag stands at a word's last token, the first at which a causal model has read the word. Words beyond
    `max_length` are predicted as `O`, or without such a tag as the first one.
    """

    auto_class = "AutoModelForTokenClassification"
    peft_type = "TOKEN_CLS"
    main_metric = "entity_f1"

    @property
    def columns(self) -> dict[str, str]:
        return {"tokens_column": self.args.tokens_column, "tags_column": self.args.tags_column}

    def learn(self, train: Sequence[Example], validation: Sequence[Example]) -> None:
        self.names = sorted({tag for example in train for tag in self._tags(example)})
        # An entity that begins in the training text may go on in the validation text.
        self.names = sorted({*self.names, *(f"I-{name[2:]}" for name in self.names if name.startswith("B-"))})
        self.ids = {name: index for index, name in enumerate(self.names)}
        for example in validation:
            for tag in self._tags(example):
                if tag not in self.ids:
                    raise CorpusError(f"{example.place}: no training example has the tag {tag!r}. Mend the row.")

    def config_fields(self) -> dict[str, Any]:
        return class_fields(self.names)

    def texts(self, example: Example) -> Iterable[str]:
        return [" ".join(texts_of(example, self.args.tokens_column))]

    def encode(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, is_training: bool
    ) -> datasets.Dataset:
        begin, end = begin_and_end(tokenizer)
        rows = []
        for example in examples:
            words, tags = texts_of(example, self.args.tokens_column), self._tags(example)
            tokens, labels = [begin], [IGNORE_INDEX]
            for ids, tag in zip(tokenize(tokenizer, [f" {word}" for word in words])["input_ids"], tags, strict=True):
                if len(tokens) + len(ids) >= self.args.max_length:
                    break
                tokens += ids
                labels += [*[IGNORE_INDEX] * (len(ids) - 1), self.ids[tag]]
            rows.append({"input_ids": [*tokens, end], "labels": [*labels, IGNORE_INDEX]})
        return to_rows(rows)

    def reduce_logits(self, logits: Any, labels: Any) -> Any:
        return as_tuple(logits)[0].argmax(-1)

    def predictions(self, outputs: Any, examples: Sequence[Example], rows: datasets.Dataset) -> list[list[str]]:
        rest = OUTSIDE if OUTSIDE in self.ids else self.names[0]
        found = []
        for example, ids, labels in zip(examples, as_tuple(outputs)[0], rows["labels"], strict=True):
            tags = [self.names[ids[place]] for place in np.flatnonzero(np.array(labels) != IGNORE_INDEX)]
            found.append([*tags, *[rest] * (len(self._tags(example)) - len(tags))])
        return found

    def score(self, predictions: Sequence[list[str]], examples: Sequence[Example]) -> dict[str, float]:
        figures = compute("entity_f1", list(predictions), [self._tags(example) for example in examples])
        return {
            "entity_f1": figures["f1"],
            "entity_precision": figures["precision"],
            "entity_recall": figures["recall"],
            "tag_accuracy": figures["accuracy"],
        }

    def _tags(self, example: Example) -> list[str]:
        words, tags = texts_of(example, self.args.tokens_column), texts_of(example, self.args.tags_column)
        if not words or len(words) != len(tags) or not all(words):
            raise CorpusError(
                f"{example.place}: {len(words)} words in {self.args.tokens_column!r} and {len(tags)} tags in "
                f"{self.args.tags_column!r}. Give a tag for each word, at least one, and no empty word."
            )
        return tags
