"""Training of a critic for a generator that stays as it is: real texts against the generator's own, in one go."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt.adversarial.checks import warn_of_sameness
from hf_gpt.adversarial.data.dataset import SpecialTokens, TextCollator, TextRows, warn_of_repeats
from hf_gpt.adversarial.discriminator.model import Scorer, check_pair
from hf_gpt.adversarial.monitoring.diagnostics import accuracy, format_features, shortcut_auc
from hf_gpt.data.packed_dataset import tokenize_documents
from hf_gpt.data.truncation import Cuts, Overlong
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.evaluation.language_model.fitting import fit
from hf_gpt.evaluation.two_sample.auc import auc_interval
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout
from hf_gpt.generation.scoring.discriminator import ScoreError, discriminator_logits, sequence_scores
from hf_gpt.training.monitoring.trainability import check_trainable


logger = logging.getLogger(__name__)

# Fewer real texts than this leave no parts to stop by and to measure on.
_FEWEST_TEXTS = 30


@dataclass(frozen=True)
class DiscriminatorResult:
    """How a critic's training went. Test figures are of texts that neither its weights nor its stopping have seen.

    Attributes:
        auc: Probability that a real test text scores above a generated one; 0.5 is guessing.
        auc_low, auc_high: Ends of its 95 % interval.
        accuracy: Share of test texts on the right side of 0.
        loss: Binary cross-entropy in nats on the texts it was stopped by; log 2 = 0.693 is guessing.
        shortcut_auc: AUC that length and special tokens alone reach on training texts: far above 0.5 the critic need
            not read.
        num_texts: Real texts learnt from, and as many generated ones.
        num_test_texts: Real texts in the test, and as many generated ones.
        epochs: Passes over the texts up to the weights that were kept.
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

    def to_dict(self) -> dict[str, float | int]:
        """The figures by name."""
        return asdict(self)


def train_discriminator(
    generator: PreTrainedModel,
    discriminator: PreTrainedModel,
    real_texts: Sequence[str] | Sequence[Mapping[str, Any]] | Any,
    *,
    processing_class: PreTrainedTokenizerBase | None = None,
    max_new_tokens: int = 64,
    level: Literal["sequence", "prefix"] = "sequence",
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float | None = None,
    weight_decay: float = 0.01,
    patience: int = 2,
    rollout_batch_size: int = 256,
    seed: int = 0,
    overlong: Overlong = "truncate",
    report_cuts: Callable[[Cuts], None] | None = None,
) -> DiscriminatorResult:
    """Trains a discriminator to tell real texts from the generator's, and leaves its best weights in it.

    Both kinds are the same but for who wrote them: the same tokens begin them (the begin token, or the row's prompt),
    `max_new_tokens` cuts them, and the end token is part of those that end before. There are as many generated texts as
    real ones, one for each prompt, so that the logit estimates the log-ratio of data to generator. The generator draws
    from its own distribution, at temperature 1. A tenth of both is held out to stop by, another tenth to measure on.

    Args:
        generator: A causal language model; it is not changed.
        discriminator: A sequence classifier with one label over the generator's tokens; see `make_discriminator`.
        real_texts: Texts, or rows with the columns that [`TextRows`] takes, such as prompt and completion.
        processing_class: The generator's tokenizer, for text.
        max_new_tokens: Most tokens of a text or completion, the end token included.
        level: `"sequence"` judges whole texts; `"prefix"` every beginning of them, which step-wise guidance needs.
        epochs: Passes over the texts, at most.
        batch_size: Texts in a step.
        learning_rate: Of AdamW. Left out: 1e-3 for the n-gram CNN, 2e-4 for others.
        weight_decay: Of AdamW.
        patience: Epochs without a better held-out loss before it stops.
        rollout_batch_size: Texts generated at once.
        seed: Of the generated texts, the parts and the order.
        overlong: What is done about a text longer than `max_new_tokens`, as for [`TextRows`].
        report_cuts: Given, before training, what of the real texts is cut or left out. Left out: it is logged.

    Raises:
        ConfigError: models that do not fit each other, or scores that are not finite after training.
        CorpusError: too few real texts, or none in the data.
    """
    if level not in ("sequence", "prefix"):
        raise ConfigError(f"level must be sequence or prefix, got {level!r}.")
    check_trainable(discriminator)
    if epochs < 1 or (learning_rate is not None and learning_rate <= 0):
        raise ConfigError(f"{epochs} epochs at a learning rate of {learning_rate} train nothing: both must be above 0.")
    if len(real_texts) and isinstance(real_texts[0], str):
        real_texts = [{"text": text} for text in real_texts]
    tokens = SpecialTokens.of(generator, processing_class)
    rows = TextRows(real_texts, tokens, processing_class, max_new_tokens, overlong=overlong)
    if report_cuts is not None:
        report_cuts(rows.cuts)
    elif rows.cuts:
        logger.warning("of the real texts: %s", rows.cuts.describe())
    if len(rows) < _FEWEST_TEXTS:
        raise CorpusError(f"{len(rows)} real texts are too few to train a critic: give at least {_FEWEST_TEXTS}.")
    check_pair(
        generator,
        discriminator,
        largest_token=rows.largest_token,
        longest=rows.longest + max_new_tokens,
        is_language_model=False,
        reads_prefixes=level == "prefix",
        reads_embeddings=False,
        tokenizer=processing_class,
    )
    collate = TextCollator(tokens.pad)
    real_rows = list(rows)
    generated_rows = _generated_rows(generator, real_rows, tokens, max_new_tokens, rollout_batch_size, seed)
    lengths = np.array([len(row["prompt_ids"]) + len(row["completion_ids"]) for row in real_rows + generated_rows])
    training, validation, test = _parts(len(real_rows), seed)
    warn_of_sameness(rows, max_new_tokens)
    warn_of_repeats(rows.select(training), rows.select(test))
    device = discriminator.device
    scorer = Scorer(discriminator)

    def loss(model: nn.Module, positions: np.ndarray) -> tuple[torch.Tensor, float]:
        chosen = [
            real_rows[position] if position < len(real_rows) else generated_rows[position - len(real_rows)]
            for position in positions
        ]
        batch = {name: tensor.to(device) for name, tensor in collate(chosen).items()}
        labels = torch.from_numpy(positions < len(real_rows)).to(device).float()
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

    both = [np.concatenate([part, part + len(real_rows)]) for part in (training, validation)]
    if learning_rate is None:
        learning_rate = 1e-3 if discriminator.config.model_type == "hf_ngram_cnn" else 2e-4
    record = fit(
        discriminator,
        loss,
        lengths,
        *both,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        patience=patience,
        seed=seed,
    )
    real, generated = (collate([texts[position] for position in test]) for texts in (real_rows, generated_rows))
    try:
        real_scores, generated_scores = (
            sequence_scores(discriminator, part["input_ids"], part["attention_mask"], batch_size)
            for part in (real, generated)
        )
    except ScoreError as error:
        raise ConfigError(f"the critic is no use after training: {error} Lower the learning rate.") from error
    found = auc_interval(real_scores.double().cpu().numpy(), generated_scores.double().cpu().numpy(), seed=seed)
    return DiscriminatorResult(
        auc=found.auc,
        auc_low=found.low,
        auc_high=found.high,
        accuracy=accuracy(real_scores, generated_scores),
        loss=record.loss,
        shortcut_auc=_shortcut(real_rows, generated_rows, training, collate, tokens),
        num_texts=len(training),
        num_test_texts=len(test),
        epochs=record.best_epoch,
    )


def text_windows(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_tokens: int, max_new_tokens: int
) -> list[dict[str, list[int]]]:
    """Pieces of long documents, one after the other, as prompts of `prompt_tokens` and completions of `max_new_tokens`.

    The first piece of a document begins with its begin token, and the last may be shorter and ends with the end token,
    as a continuation by the generator may.

    Raises:
        CorpusError: no document is longer than a prompt.
    """
    rows = []
    for ids in map(np.ndarray.tolist, tokenize_documents(list(documents), tokenizer)):
        for start in range(0, len(ids) - prompt_tokens, prompt_tokens + max_new_tokens):
            middle = start + prompt_tokens
            rows.append({"prompt_ids": ids[start:middle], "completion_ids": ids[middle : middle + max_new_tokens]})
    if not rows:
        raise CorpusError(f"no document is longer than a prompt of {prompt_tokens} tokens. Lower --prompt_tokens.")
    return rows


def _generated_rows(generator, real_rows, tokens, max_new_tokens, batch_size, seed) -> list[dict[str, Any]]:
    longest = max(len(row["prompt_ids"]) for row in real_rows)
    prompts = torch.full((len(real_rows), longest), tokens.pad)
    mask = torch.zeros_like(prompts)
    for position, row in enumerate(real_rows):
        prompts[position, longest - len(row["prompt_ids"]) :] = torch.tensor(row["prompt_ids"])
        mask[position, longest - len(row["prompt_ids"]) :] = 1
    samples = rollout(
        generator,
        prompts,
        mask,
        sampling=SamplingConfig(max_new_tokens=max_new_tokens, eos_token_id=tokens.eos, pad_token_id=tokens.pad),
        generator=torch.Generator().manual_seed(seed),
        batch_size=batch_size,
    )
    completions = zip(samples.completions.cpu(), samples.completion_mask.bool().cpu(), strict=True)
    return [
        {**row, "completion_ids": ids[kept].tolist()} for row, (ids, kept) in zip(real_rows, completions, strict=True)
    ]


def _parts(number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Copies may be in several parts, of which `warn_of_repeats` tells: without a common text a part would be of another
    # distribution, and the logit estimates the ratio of distributions.
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
