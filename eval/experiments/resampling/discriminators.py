"""
Discriminators of a model's texts: the log-ratio of a larger language model, classifiers of real against generated, and
both.

A discriminator is a function of a pool to logits. The best one, up to a constant, is log p(x) - log q(x): of the real
texts, and of the model that the pool was sampled from.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from eval.experiments.resampling.pools import Pool, encode, sample, text_logps
from eval.experiments.resampling.stage import Stage
from hf_gpt.adversarial.discriminator.factory import make_discriminator
from hf_gpt.adversarial.discriminator.train_discriminator import train_discriminator
from hf_gpt.adversarial.monitoring.diagnostics import auc
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import BOS
from hf_gpt.generation.scoring.discriminator import sequence_scores


Discriminator = Callable[[Pool], torch.Tensor]


def log_ratio(psi: WordModel, q: WordModel, psi_temperature: float = 1.0, q_temperature: float = 1.0) -> Discriminator:
    """log psi(x) - log q(x) of whole texts, each at its temperature: the weights that turn samples of one into those of
    the other."""
    return lambda pool: text_logps(psi, pool, psi_temperature) - text_logps(q, pool, q_temperature)


def classifier(stage: Stage, of: Literal["generator", "density"]) -> Discriminator:
    """A classifier of real texts against those of a model of the stage, trained when first used and kept.

    It begins as psi with a head on the last token's state. The stage's training texts are the real ones.
    """
    model: WordModel = getattr(stage, of)

    @cache
    def trained() -> PreTrainedModel:
        torch.manual_seed(stage.seed)
        discriminator = make_discriminator("from_generator", stage.density.model)

        def train() -> dict[str, Any]:
            encoded = stage.vocabulary.encode(stage.training, stage.max_words)
            rows = [{"prompt_ids": [BOS], "completion_ids": row[1:].tolist()} for row in encoded]
            settings = {"max_new_tokens": stage.max_words + 1, "epochs": stage.sizes.epochs, "seed": stage.seed + 30}
            return train_discriminator(model.model, discriminator, rows, **settings).to_dict()

        return stage.kept(f"classifier of {of}", discriminator, train)

    return lambda pool: sequence_scores(trained(), pool.ids.long(), pool.mask, batch_size=64)


def best_weights(stage: Stage, discriminators: Sequence[Discriminator], model: WordModel) -> list[float]:
    """Weights of the sum of discriminators that tells validation texts from a model's own best.

    By logistic regression, so that the sum is a log-ratio in nats whatever the scale of its parts. None of the
    discriminators may have learnt from validation texts.
    """
    from sklearn.linear_model import LogisticRegression

    real = encode(stage.validation, stage.vocabulary, stage.max_words)
    generated = sample(model, 2 * len(real), seed=stage.seed + 40)
    features = np.concatenate(
        [np.stack([discriminator(pool).numpy() for discriminator in discriminators], 1) for pool in (real, generated)]
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
        sum(weight * discriminator(pool) for weight, discriminator in zip(weights, discriminators, strict=True))
        for pool in (real, sample(model, len(real), seed=stage.seed + 50))
    ]
    return auc(*scores)
