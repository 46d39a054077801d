"""Training of a discriminator for a generator that does not change: real texts against generated ones."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt.adversarial.checks import warn_of_sameness
from hf_gpt.adversarial.data.dataset import SpecialTokens, TextCollator, TextRows, warn_of_repeats
from hf_gpt.adversarial.discriminator.model import Scorer, check_pair
from hf_gpt.adversarial.discriminator.module import as_discriminator
from hf_gpt.adversarial.monitoring.diagnostics import accuracy, format_features, shortcut_auc, unpadded
from hf_gpt.data.collators import pad_rows
from hf_gpt.data.truncation import Cuts, Overlong
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.evaluation.language_model.fitting import BatchLoss, fit
from hf_gpt.evaluation.language_model.residual_likelihood import residual_likelihood
from hf_gpt.evaluation.two_sample.auc_interval import auc_interval
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout
from hf_gpt.generation.scoring.discriminator import ScoreError, discriminator_logits, sequence_scores
from hf_gpt.training.monitoring.trainability import check_trainable


logger = logging.getLogger(__name__)

# Fewer real texts than this leave no parts to stop by and to measure on.
_FEWEST_TEXTS = 30
_LEARNING_RATES = {"hf_ngram_cnn": 1e-3, "hf_gpt_text_discriminator": 1e-4}


@dataclass(frozen=True)
class DiscriminatorTrainingConfig:
    """Settings of `train_discriminator`.

    Attributes:
        objective: `"classification"`: to tell texts apart. `"residual"`: the same loss, which is noise-contrastive
            estimation of the log-ratio of data to generator, and then the likelihood that the ratio gains on unseen
            texts, see `residual_likelihood`.
        num_samples: With `"residual"`: samples of the generator that log Z is estimated by.
        max_new_tokens: Most tokens of a text or completion, the end token included.
        level: `"sequence"` scores whole texts. `"prefix"` scores every prefix, which step-wise guidance needs.
        epochs: Passes over the texts, at most.
        batch_size: Texts in a step.
        learning_rate: Of AdamW. None: 1e-3 for the n-gram CNN, 1e-4 for a pretrained model with a tokenizer of its own,
            2e-4 for others.
        weight_decay: Of AdamW.
        patience: Epochs without a lower held-out loss before it stops.
        rollout_batch_size: Texts generated at once.
        seed: Of the generated texts, the split and the order.
        overlong: What is done about a text longer than `max_new_tokens`, as for [`TextRows`].

    Raises:
        ConfigError: an unknown objective or level, or epochs or a learning rate that train nothing.
    """

    objective: Literal["classification", "residual"] = "classification"
    num_samples: int = 4096
    max_new_tokens: int = 64
    level: Literal["sequence", "prefix"] = "sequence"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float | None = None
    weight_decay: float = 0.01
    patience: int = 2
    rollout_batch_size: int = 256
    seed: int = 0
    overlong: Overlong = "truncate"

    def __post_init__(self):
        if self.level not in ("sequence", "prefix"):
            raise ConfigError(f"level must be sequence or prefix, got {self.level!r}.")
        if self.objective not in ("classification", "residual"):
            raise ConfigError(f"objective must be classification or residual, got {self.objective!r}.")
        if self.objective == "residual" and self.level == "prefix":
            raise ConfigError(
                "a residual model weighs whole texts: train it at level sequence, or by objective classification."
            )
        if self.epochs < 1 or (self.learning_rate is not None and self.learning_rate <= 0):
            raise ConfigError(
                f"{self.epochs} epochs at a learning rate of {self.learning_rate} train nothing: both must be above 0."
            )


@dataclass(frozen=True)
class DiscriminatorResult:
    """How a discriminator's training went.

    Test metrics are of texts that neither training nor early stopping has seen.

    Attributes:
        auc: Probability that a real test text scores above a generated one; 0.5 is chance.
        auc_low, auc_high: Ends of its 95 % interval.
        accuracy: Share of test texts on the right side of 0.
        loss: Binary cross-entropy in nats on the texts of early stopping; log 2 = 0.693 is chance.
        shortcut_auc: AUC on training texts of length and special tokens alone. Far above 0.5, the discriminator need
            not read.
        num_texts: Real training texts, and as many generated ones.
        num_test_texts: Real test texts, and as many generated ones.
        epochs: Passes over the texts up to the weights that were kept.
        residual: Of the objective `"residual"`: the likelihood of the real test texts, as `ResidualLikelihood.to_dict`
            gives it.
    """

    auc: float
    auc_low: float
    auc_high: float
    accuracy: float
    loss: float
    shortcut_auc: float
    num_texts: int
    num_test_texts: int
    epochs: int
    residual: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The metrics by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def train_discriminator(
    generator: PreTrainedModel,
    discriminator: PreTrainedModel,
    real_texts: Sequence[str] | Sequence[Mapping[str, Any]] | Any,
    *,
    processing_class: PreTrainedTokenizerBase | None = None,
    config: DiscriminatorTrainingConfig | None = None,
    report_cuts: Callable[[Cuts], None] | None = None,
    **settings: Any,
) -> DiscriminatorResult:
    """Trains a discriminator to tell real texts from the generator's, and leaves its best weights in it.

    Real and generated texts start with the same tokens: the begin token, or the row's prompt. Both are cut at
    `max_new_tokens`, and the end token is part of those that end before. Each prompt gets one generated text, sampled
    at temperature 1, so the logit estimates the log-ratio of data to generator. A tenth of both is held out for early
    stopping, another tenth for the test.

    Args:
        generator: A causal language model; it is not changed.
        discriminator: A sequence classifier with one label over the generator's tokens; see `make_discriminator`.
            Or any `nn.Module` that returns one logit for each text.
        real_texts: Texts, or rows with the columns that [`TextRows`] takes, such as prompt and completion.
        processing_class: The generator's tokenizer, for text.
        config: The settings. None: the defaults.
        report_cuts: Called before training with what is cut or left out of the real texts. None: it is logged.
        settings: Fields of [`DiscriminatorTrainingConfig`], in place of those in `config`.

    Raises:
        ConfigError: models that do not fit each other, or scores that are not finite after training.
        CorpusError: too few real texts, or none in the data.
    """
    config = replace(config or DiscriminatorTrainingConfig(), **settings)
    discriminator = as_discriminator(discriminator, generator)
    check_trainable(discriminator)
    tokens = SpecialTokens.of(generator, processing_class)
    rows = _read(real_texts, tokens, processing_class, config, report_cuts)
    check_pair(
        generator,
        discriminator,
        largest_token=rows.largest_token,
        longest=rows.longest + config.max_new_tokens,
        is_language_model=False,
        reads_prefixes=config.level == "prefix",
        reads_embeddings=False,
        tokenizer=processing_class,
    )
    real = list(rows)
    generated = _generated_rows(generator, real, tokens, config)
    training, validation, test = _parts(len(real), config.seed)
    warn_of_sameness(rows, config.max_new_tokens)
    warn_of_repeats(rows.select(training), rows.select(test))
    collate = TextCollator(tokens.pad)
    learning_rate = config.learning_rate
    if learning_rate is None:
        learning_rate = _LEARNING_RATES.get(discriminator.config.model_type, 2e-4)
    both = [np.concatenate([part, part + len(real)]) for part in (training, validation)]
    record = fit(
        discriminator,
        _batch_loss(discriminator, real, generated, collate, config.level),
        [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in real + generated],
        *both,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=learning_rate,
        weight_decay=config.weight_decay,
        patience=config.patience,
        seed=config.seed,
    )
    batches = [collate([texts[position] for position in test]) for texts in (real, generated)]
    residual = None
    if config.objective == "residual":
        residual = _residual(generator, discriminator, [real[position] for position in test], tokens, config)
    return DiscriminatorResult(
        **_test_metrics(discriminator, *batches, config),
        loss=record.loss,
        shortcut_auc=_shortcut(real, generated, training, collate, tokens),
        num_texts=len(training),
        num_test_texts=len(test),
        epochs=record.best_epoch,
        residual=residual,
    )


def _read(real_texts, tokens, processing_class, config, report_cuts) -> TextRows:
    rows = TextRows(real_texts, tokens, processing_class, config.max_new_tokens, overlong=config.overlong)
    if report_cuts is not None:
        report_cuts(rows.cuts)
    elif rows.cuts:
        logger.warning("of the real texts: %s", rows.cuts.describe())
    if len(rows) < _FEWEST_TEXTS:
        raise CorpusError(
            f"{len(rows)} real texts are too few to train a discriminator: give at least {_FEWEST_TEXTS}."
        )
    return rows


def _batch_loss(discriminator, real, generated, collate, level) -> BatchLoss:
    """Binary cross-entropy of texts by their positions: real texts first, then the generated ones."""
    rows, scorer, device = real + generated, Scorer(discriminator), discriminator.device

    def loss(model: nn.Module, positions: np.ndarray) -> tuple[torch.Tensor, float]:
        batch = {
            name: tensor.to(device) for name, tensor in collate([rows[position] for position in positions]).items()
        }
        labels = torch.from_numpy(positions < len(real)).to(device).float()
        if level == "sequence":
            scores = discriminator_logits(model, batch["input_ids"], batch["attention_mask"])
            return nn.functional.binary_cross_entropy_with_logits(scores, labels), len(positions)
        width = batch["completions"].shape[1]
        options = {"kind": "prefix", "prompt_length": batch["prompt_length"], "num_tokens": width}
        # The first score is that of the prompt, which both kinds share.
        scores = scorer(batch["input_ids"], batch["attention_mask"], **options)[:, 1:]
        inside = batch["completion_mask"].bool()
        targets = labels[:, None].expand_as(scores)
        losses = nn.functional.binary_cross_entropy_with_logits(scores[inside], targets[inside])
        return losses, int(inside.sum())

    return loss


def _test_metrics(discriminator, real, generated, config) -> dict[str, float]:
    try:
        real_scores, generated_scores = (
            sequence_scores(discriminator, texts["input_ids"], texts["attention_mask"], config.batch_size)
            for texts in (real, generated)
        )
    except ScoreError as error:
        raise ConfigError(f"the discriminator is useless after training: {error} Lower the learning rate.") from error
    samples = [scores.double().cpu().numpy() for scores in (real_scores, generated_scores)]
    found = auc_interval(*samples, seed=config.seed)
    right = accuracy(real_scores, generated_scores)
    return {"auc": found.auc, "auc_low": found.low, "auc_high": found.high, "accuracy": right}


def _residual(generator, discriminator, real_rows, tokens, config) -> dict[str, Any]:
    sampling = SamplingConfig(max_new_tokens=config.max_new_tokens, eos_token_id=tokens.eos, pad_token_id=tokens.pad)
    found = residual_likelihood(
        generator,
        discriminator,
        [row["prompt_ids"] for row in real_rows],
        [row["completion_ids"] for row in real_rows],
        sampling=sampling,
        num_samples=config.num_samples,
        batch_size=config.rollout_batch_size,
        # Those of `seed` were trained on.
        seed=config.seed + 1,
    )
    return found.to_dict()


def _generated_rows(generator, real_rows, tokens, config) -> list[dict[str, Any]]:
    samples = rollout(
        generator,
        *pad_rows([row["prompt_ids"] for row in real_rows], tokens.pad, "left"),
        sampling=SamplingConfig(max_new_tokens=config.max_new_tokens, eos_token_id=tokens.eos, pad_token_id=tokens.pad),
        generator=torch.Generator().manual_seed(config.seed),
        batch_size=config.rollout_batch_size,
    )
    completions = unpadded(samples.completions, samples.completion_mask)
    return [{**row, "completion_ids": ids} for row, ids in zip(real_rows, completions, strict=True)]


def _parts(number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Copies may be in several parts: without a common text a part would be of another distribution.
    order = np.random.default_rng(seed).permutation(number)
    held_out = math.ceil(number / 10)
    return order[2 * held_out :], order[:held_out], order[held_out : 2 * held_out]


def _shortcut(real_rows, generated_rows, training, collate, tokens) -> float:
    special = sorted({tokens.bos, tokens.eos, tokens.pad})
    features = []
    for texts in (real_rows, generated_rows):
        batch = collate([texts[position] for position in training])
        features.append(format_features(batch["completions"], batch["completion_mask"], special))
    return shortcut_auc(*features)
