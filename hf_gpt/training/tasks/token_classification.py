"""Classification of words: named entities, parts of speech."""

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.examples import Example, texts_of
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.data.special_tokens import begin_and_end, tokenize
from hf_gpt.errors import CorpusError
from hf_gpt.evaluation import compute
from hf_gpt.training.tasks.base import Examples, Task, as_tuple, to_rows


OUTSIDE = "O"


class TokenClassification(Task):
    """A tag for each word; F1 of whole entities and accuracy of tags.

    The tag stands at a word's last token, the first at which a causal model has read the word. Words beyond
    `max_length` are predicted as `O`, or without such a tag as the first one.
    """

    classes_option = "tags_column"
    column_options = ("tokens_column", "tags_column")
    auto_class = "AutoModelForTokenClassification"
    peft_type = "TOKEN_CLS"
    main_metric = "entity_f1"
    has_token_labels = True

    def check(self, example: Example) -> None:
        for tag in self._tags(example):
            if self.names and tag not in self.ids:
                raise CorpusError(
                    f"{example.position}: the tag {tag!r} is none of {', '.join(self.names[:10])}. Mend it, or name "
                    "the tags with --class_names."
                )

    def learn(self, train: Iterable[Example], validation: Examples) -> None:
        names = list(self.args.class_names or ())
        if not names:
            found = {tag for example in train for tag in self._tags(example)}
            # An entity that begins in the training text may go on in the validation text.
            names = sorted({*found, *(f"I-{name[2:]}" for name in found if name.startswith("B-"))})
        self.names, self.ids = names, {name: index for index, name in enumerate(names)}
        super().learn(train, validation)

    def texts(self, example: Example) -> Iterable[str]:
        return [" ".join(texts_of(example, self.args.tokens_column))]

    def encode(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, *, is_training: bool) -> datasets.Dataset:
        begin, end = begin_and_end(tokenizer)
        rows = []
        cuts = self.start_counting(is_training, len(examples))
        for index, example in enumerate(examples):
            words, tags = texts_of(example, self.args.tokens_column), self._tags(example)
            tokens, labels = [begin], [IGNORE_INDEX]
            encoded = tokenize(tokenizer, [f" {word}" for word in words])["input_ids"]
            for ids, tag in zip(encoded, tags, strict=True):
                if len(tokens) + len(ids) >= self.args.max_length:
                    break
                tokens += ids
                labels += [*[IGNORE_INDEX] * (len(ids) - 1), self.ids[tag]]
            length, lost = 2 + sum(map(len, encoded)), len(tags) - sum(label != IGNORE_INDEX for label in labels)
            if lost:
                if not cuts.keeps(self.args.overlong, example.position, length):
                    continue
                cuts.add("rows_cut")
                cuts.add("tokens_cut", length - 1 - len(tokens))
                cuts.add("labels_cut", lost)
                if lost == len(tags) and is_training:
                    cuts.add("unlabelled")
                    continue
            self.kept.append(index)
            rows.append({"input_ids": [*tokens, end], "labels": [*labels, IGNORE_INDEX]})
        return to_rows(rows)

    def reduce_logits(self, logits: Any, labels: Any) -> Any:
        return as_tuple(logits)[0].argmax(-1)

    def predictions(self, outputs: Any, examples: Examples, rows: datasets.Dataset) -> list[list[str]]:
        rest = OUTSIDE if OUTSIDE in self.ids else self.names[0]
        found = []
        for example, ids, labels in zip(examples, as_tuple(outputs)[0], rows["labels"], strict=True):
            tags = [self.names[ids[position]] for position in np.flatnonzero(np.array(labels) != IGNORE_INDEX)]
            found.append([*tags, *[rest] * (len(self._tags(example)) - len(tags))])
        return found

    def score(self, predictions: Sequence[list[str]], examples: Examples) -> dict[str, float]:
        metrics = compute("entity_f1", list(predictions), [self._tags(example) for example in examples])
        return {
            "entity_f1": metrics["f1"],
            "entity_precision": metrics["precision"],
            "entity_recall": metrics["recall"],
            "tag_accuracy": metrics["accuracy"],
        }

    def _tags(self, example: Example) -> list[str]:
        words, tags = texts_of(example, self.args.tokens_column), texts_of(example, self.args.tags_column)
        if not words or len(words) != len(tags) or not all(words):
            raise CorpusError(
                f"{example.position}: {len(words)} words in {self.args.tokens_column!r} and {len(tags)} tags in "
                f"{self.args.tags_column!r}. Give a tag for each word, at least one, and no empty word."
            )
        return tags
