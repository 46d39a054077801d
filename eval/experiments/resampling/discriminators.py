"""
Discriminators of a model's texts: functions of texts to logits.

The best one, up to a constant, is log p(x) - log q(x): of the real texts, and of the model that they are sampled from.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from eval.experiments.common.results import kept_model
from eval.experiments.common.words import encode, sample_words
from eval.experiments.resampling.stage import Stage
from hf_gpt.adversarial.discriminator.factory import make_discriminator
from hf_gpt.adversarial.discriminator.train_discriminator import train_discriminator
from hf_gpt.adversarial.monitoring.diagnostics import auc
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import BOS
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import sequence_scores


Discriminator = Callable[[Rollout], torch.Tensor]


def classifier(stage: Stage, of: Literal["generator", "density"]) -> Discriminator:
    """A classifier of real texts against those of a model of the stage, trained when first used and kept.

    It begins as psi with a head on the last token's state. The stage's training texts are the real ones.
    """

    @cache
    def trained() -> PreTrainedModel:
        torch.manual_seed(stage.seed)
        discriminator = make_discriminator("from_generator", stage.density.model)

        def train() -> dict[str, Any]:
            encoded = stage.vocabulary.encode(stage.training, stage.max_words)
            rows = [{"prompt_ids": [BOS], "completion_ids": row[1:].tolist()} for row in encoded]
            settings = {"max_new_tokens": stage.max_words + 1, "epochs": stage.options.epochs, "seed": stage.seed + 30}
            return train_discriminator(getattr(stage, of).model, discriminator, rows, **settings).to_dict()

        kept_model(stage.folder / f"classifier of {of}.pt", discriminator, train)
        return discriminator

    return lambda texts: sequence_scores(trained(), texts.sequences, texts.attention_mask, batch_size=64)


def best_weights(stage: Stage, discriminators: Sequence[Discriminator], model: WordModel) -> list[float]:
    """Weights of the sum of discriminators that tells validation texts from a model's own best.

    By logistic regression, so that the sum is a log-ratio in nats whatever the scale of its parts. None of the
    discriminators may have learnt from validation texts.
    """
    from sklearn.linear_model import LogisticRegression

    real = encode(stage.validation, stage.vocabulary, stage.max_words)
    generated = sample_words(model, 2 * len(real), stage.seed + 40)
    features = np.concatenate(
        [np.stack([discriminator(texts).numpy() for discriminator in discriminators], 1) for texts in (real, generated)]
    )
    labels = np.arange(len(features)) < len(real)
    fitted = LogisticRegression(C=1e4, max_iter=1000, class_weight="balanced").fit(features, labels)
    return [float(weight) for weight in fitted.coef_[0]]


def unseen_auc(
    stage: Stage, discriminators: Sequence[Discriminator], weights: Sequence[float], model: WordModel
) -> float:
    """Probability that a real text that no model has seen scores above one of a model's, by a sum of discriminators."""
    real = encode(stage.reverse_texts[:1000], stage.vocabulary, stage.max_words)
    scores = [
        sum(weight * discriminator(texts) for weight, discriminator in zip(weights, discriminators, strict=True))
        for texts in (real, sample_words(model, len(real), stage.seed + 50))
    ]
    return auc(*scores)
