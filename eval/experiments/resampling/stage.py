"""The stage of a seed: real texts in four parts, and three language models of words that are trained on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from eval.experiments.common.data import read_words
from eval.experiments.common.results import Results
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import WordVocabulary
from hf_gpt.files.atomic_files import replaces_file


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


@dataclass(frozen=True)
class Sizes:
    """Width and layers of the two models that sample texts, and the passes that maximum likelihood may take."""

    generator: tuple[int, int] = (16, 1)
    density: tuple[int, int] = (64, 2)
    epochs: int = 30


class Stage:
    """Texts and models of a seed. Models are trained when first asked for and kept in a folder.

    Args:
        corpus: Where the texts come from.
        num_real: Texts used of each of the two files; None: all.
        sizes: Of the models.
        seed: Of split, weights and order.
        folder: Keeps the models.
        results: Keeps what their training saw.

    Attributes:
        training, validation: Words of texts to learn from and to stop by.
        judge_texts, reverse_texts: Those of texts that no model sees: the judge of quality learns the former,
            diversity is measured on the latter.
    """

    def __init__(self, corpus: Corpus, num_real: int | None, sizes: Sizes, seed: int, folder: Path, results: Results):
        self.sizes, self.seed, self.folder, self.results = sizes, seed, folder, results
        self.max_words = corpus.max_words
        generator = np.random.default_rng(seed)
        split, unseen = (read_words(name, num_real) for name in (corpus.learnt, corpus.unseen))
        if corpus.is_mixed:
            both = [*split, *unseen]
            mixed = [both[position] for position in generator.permutation(len(both))]
            split, unseen = mixed[: len(split)], mixed[len(split) :]
        order = generator.permutation(len(split))
        tenth = len(split) // 10
        self.validation, self.training = ([split[n] for n in part] for part in np.split(order, [tenth]))
        # All points share them, so more would tell hardly more.
        self.judge_texts, self.reverse_texts = unseen[::2], unseen[1::2][:REVERSE_TEXTS]
        # Those who sample and those who choose share their tokens.
        self.vocabulary = WordVocabulary(split)
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def generator(self) -> WordModel:
        """q, which samples the candidates."""
        model = WordModel(self.vocabulary, self.max_words, *self.sizes.generator, seed=self.seed)
        # So small a model takes larger steps.
        return self._trained("generator", model, self.training, self.validation, learning_rate=6e-3)

    @cached_property
    def density(self) -> WordModel:
        """psi, a larger model of the same texts, whose ratio to q is a discriminator."""
        model = WordModel(self.vocabulary, self.max_words, *self.sizes.density, seed=self.seed + 500)
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
            fit = model.train(training, validation, epochs=self.sizes.epochs, seed=self.seed, **settings)
            return {"validation_loss": round(fit.loss, 4), "epochs": fit.best_epoch}

        self.kept(name, model.model, train)
        return model

    def kept(self, name: str, model: nn.Module, train: Callable[[], dict[str, Any]]) -> nn.Module:
        """A model with the weights that its training left in an earlier run, or trained now; in evaluation mode.

        Args:
            name: Of its file and of the point that holds what `train` returns.
            model: As it is before training.
            train: Trains it in place.
        """
        file = self.folder / f"{name}.pt"
        if file.exists():
            model.load_state_dict(torch.load(file))
        else:
            self.results.points.pop(f"{self.seed}/{name}", None)
            self.results.point(self.seed, name, train)
            with replaces_file(file) as draft:
                torch.save(model.state_dict(), draft)
        return model.eval()
