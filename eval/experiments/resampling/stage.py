"""The stage of a seed: real texts in four parts, and three language models of words that are trained on them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eval.experiments.common.data import read_words
from eval.experiments.common.results import kept_model
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import WordVocabulary


REVERSE_TEXTS = 2000


@dataclass(frozen=True)
class Corpus:
    """Texts to learn from and texts that no model sees.

    Attributes:
        title: Of tables and plots.
        learnt, unseen: A file each.
        is_mixed: Their lines are shuffled together first, by the seed: for files of unlike texts, where a judge of one
            would measure what the other is about.
        max_words: Words of a text that are read.
    """

    title: str
    learnt: str
    unseen: str
    is_mixed: bool
    max_words: int


# Texygen's two files of captions differ: bathrooms and kitchens fill the first alone. A model of the second needs 3.7
# nats a word for its own texts and 5.0 for those of the first.
CORPORA = {
    "coco": Corpus("COCO captions", "lm/coco_captions/image_coco.txt", "lm/coco_captions/test_coco.txt", True, 40),
    "news": Corpus("EMNLP news", "lm/emnlp_news/train_10k.txt.gz", "lm/emnlp_news/test_emnlp.txt.gz", False, 52),
}


class Stage:
    """Texts and models of a seed. Models are trained when first asked for and kept in a folder.

    Attributes:
        training, validation: Words of texts to learn from and to stop by.
        judge_texts, reverse_texts: Those of texts that no model sees: the judge of quality learns the former,
            diversity is measured on the latter.
    """

    def __init__(self, corpus: Corpus, options: argparse.Namespace, seed: int, folder: Path):
        self.options, self.seed, self.folder = options, seed, folder
        self.max_words = corpus.max_words
        generator = np.random.default_rng(seed)
        split, unseen = (read_words(name) for name in (corpus.learnt, corpus.unseen))
        if corpus.is_mixed:
            both = [*split, *unseen]
            mixed = [both[position] for position in generator.permutation(len(both))]
            split, unseen = mixed[: len(split)], mixed[len(split) :]
        order = generator.permutation(len(split))
        self.validation, self.training = ([split[n] for n in part] for part in np.split(order, [len(split) // 10]))
        # All points share them, so more would tell hardly more.
        self.judge_texts, self.reverse_texts = unseen[::2], unseen[1::2][:REVERSE_TEXTS]
        # Those who sample and those who choose share their tokens.
        self.vocabulary = WordVocabulary(split)

    @cached_property
    def generator(self) -> WordModel:
        """q, which samples the candidates."""
        model = WordModel(self.vocabulary, self.max_words, *self.options.generator, seed=self.seed)
        # So small a model takes larger steps.
        return self._trained("generator", model, self.training, self.validation, learning_rate=6e-3)

    @cached_property
    def density(self) -> WordModel:
        """psi, a larger model of the same texts, whose ratio to q is a discriminator."""
        model = WordModel(self.vocabulary, self.max_words, *self.options.density, seed=self.seed + 500)
        return self._trained("density", model, self.training, self.validation)

    @cached_property
    def judge(self) -> WordModel:
        """What the quality of texts is measured by."""
        tenth = len(self.judge_texts) // 10
        model = WordModel(WordVocabulary(self.judge_texts), self.max_words, seed=self.seed + 1000)
        return self._trained("judge", model, self.judge_texts[tenth:], self.judge_texts[:tenth])

    def _trained(
        self,
        name: str,
        model: WordModel,
        training: Sequence[Sequence[str]],
        validation: Sequence[Sequence[str]],
        **settings: Any,
    ) -> WordModel:
        def train() -> dict[str, Any]:
            fit = model.train(training, validation, epochs=self.options.epochs, seed=self.seed, **settings)
            return {"validation_loss": fit.loss, "epochs": fit.best_epoch}

        kept_model(self.folder / f"{name}.pt", model.model, train)
        return model
