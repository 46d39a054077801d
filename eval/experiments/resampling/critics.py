"""
Critics of a model's texts: the log-ratio of a larger language model, classifiers of real against generated, and both.

A critic is a function of a pool to logits; log p(x) - log q(x) of the real texts to the model that drew the pool is the
best that it can be, up to a constant.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_gpt.eval.experiments.resampling.pools import Pool, draw, encode, text_logps
from hf_gpt.eval.experiments.resampling.stage import Stage
from hf_gpt.eval.language_model.word_model import WordModel
from hf_gpt.eval.vocabulary import BOS
from hf_gpt.generation.scoring import sequence_scores
from hf_gpt.training.adversarial.figures import auc
from hf_gpt.training.critic import make_critic, train_critic


Critic = Callable[[Pool], torch.Tensor]


def log_ratio(psi: WordModel, q: WordModel, psi_temperature: float = 1.0, q_temperature: float = 1.0) -> Critic:
    """log psi(x) - log q(x) of whole texts, each at its temperature: the weights that turn samples of one into those of
    the other."""
    return lambda pool: text_logps(psi, pool, psi_temperature) - text_logps(q, pool, q_temperature)


def train_classifier(stage: Stage, kind: str, model: WordModel) -> tuple[Critic, dict[str, float]]:
    """A classifier of real texts against a model's own at temperature 1, and how its training went.

    Args:
        stage: Its training texts are the real ones.
        kind: `"density"`: begins as psi, with a head on the last token's state. `"ngram_cnn"`: from nothing.
        model: Which draws.
    """
    rows = [
        {"prompt_ids": [BOS], "completion_ids": row[1:].tolist()}
        for row in stage.vocabulary.encode(stage.training, stage.max_words)
    ]
    torch.manual_seed(stage.seed)
    critic: PreTrainedModel = make_critic("generator" if kind == "density" else kind, stage.density.model)
    settings = {"max_new_tokens": stage.max_words + 1, "epochs": stage.sizes.epochs, "seed": stage.seed + 30}
    found = train_critic(model.model, critic, rows, **settings)
    return lambda pool: sequence_scores(critic, pool.ids.long(), pool.mask, batch_size=64), found.to_dict()


def combine(stage: Stage, critics: Sequence[Critic], model: WordModel) -> tuple[Critic, list[float]]:
    """The weighted sum of critics that tells validation texts from a model's own best, and its weights.

    Logistic regression, so that the sum is a log-ratio in nats whatever the scale of its parts. None of the critics may
    have learnt from validation texts.
    """
    from sklearn.linear_model import LogisticRegression

    real = encode(stage.validation, stage.vocabulary, stage.max_words)
    fake = draw(model, 2 * len(real), seed=stage.seed + 40)
    features = np.concatenate([np.stack([critic(pool).numpy() for critic in critics], 1) for pool in (real, fake)])
    labels = np.arange(len(features)) < len(real)
    fitted = LogisticRegression(C=1e4, max_iter=1000, class_weight="balanced").fit(features, labels)
    weights = torch.from_numpy(fitted.coef_[0]).float()
    return lambda pool: sum(w * critic(pool) for w, critic in zip(weights, critics, strict=True)), weights.tolist()


def unseen_auc(stage: Stage, critic: Critic, model: WordModel, number: int = 1000) -> float:
    """Probability that a real text that no player has seen scores above one of the model's."""
    real = encode(stage.reverse_texts[:number], stage.vocabulary, stage.max_words)
    return auc(critic(real), critic(draw(model, number, seed=stage.seed + 50)))
