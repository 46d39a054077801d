"""The neural classifiers of C2ST: an n-gram CNN or a small GPT, independent of generator and discriminator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.data.splits import held_out_rows
from hf_gpt.evaluation.language_model.fitting import fit, over_rows, seeded
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, PAD, WordVocabulary


if TYPE_CHECKING:
    from transformers import PreTrainedModel

Body = Literal["ngram_cnn", "gpt"]
BODIES: tuple[str, ...] = ("ngram_cnn", "gpt")


def make_classifier(body: Body, vocab_size: int, max_length: int) -> "PreTrainedModel":
    """An untrained classifier with one label.

    Args:
        body: `"ngram_cnn"`, which learns from little data, or `"gpt"`, which sees word order over any distance.
        vocab_size: Token embeddings.
        max_length: Longest row in tokens.

    Raises:
        ValueError: there is no such body.
    """
    special = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "num_labels": 1}
    if body == "ngram_cnn":
        from hf_gpt.models.configuration_hf_ngram_cnn import HfNgramCnnConfig
        from hf_gpt.models.modeling_hf_ngram_cnn import HfNgramCnnForSequenceClassification

        config = HfNgramCnnConfig(vocab_size=vocab_size, is_causal=False, classifier_dropout=0.25, **special)
        return HfNgramCnnForSequenceClassification(config)
    if body == "gpt":
        from hf_gpt.models.configuration_hf_gpt import HfGptConfig
        from hf_gpt.models.modeling_hf_gpt import HfGptForSequenceClassification

        return HfGptForSequenceClassification(
            HfGptConfig(
                vocab_size=vocab_size,
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=max_length,
                is_causal=False,
                classifier_pooling="mean",
                classifier_dropout=0.25,
                hidden_dropout=0.1,
                **special,
            )
        )
    raise ValueError(f"classifier must be one of {', '.join(BODIES)}; got {body!r}.")


def neural_classifier_scores(
    texts: Sequence[Sequence[str]],
    labels: np.ndarray,
    others: Sequence[Sequence[str]],
    *,
    body: Body = "ngram_cnn",
    max_length: int = 256,
    vocab_size: int = 20_000,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of label 1 for training texts and for others, after training on the former.

    A tenth of the training texts is held out for early stopping, copies together. Texts of both labels are cut, framed
    and padded alike.

    Args:
        texts: Tokens of each text to learn from.
        labels: 0 or 1 for each of them, `(texts,)`; both classes weigh the same.
        others: Tokens of each text to score.
        body: As in `make_classifier`.
        max_length: Words of a text that are read.
        vocab_size: Words that are known, at most; they come from `texts` alone. Words that
            occur only once are unknown, so that the classifier learns what unknown words tell.
        epochs, batch_size, learning_rate: Of the training.
        seed: Of the weights and the training.

    Returns:
        Logits `(texts,)` and `(others,)`, float64.
    """
    vocabulary = WordVocabulary(texts, vocab_size, min_count=2)
    rows = vocabulary.encode(texts, max_length)
    lengths = np.array([len(row) for row in rows])
    with seeded(seed):
        model = make_classifier(body, len(vocabulary), max_length + 2)
    targets = torch.from_numpy(labels).float()
    # Both classes weigh the same, and all weights together one for each text.
    frequencies = np.bincount(labels, minlength=2)
    weights = torch.from_numpy((len(labels) / 2 / frequencies)[labels]).float()

    def loss(model: "PreTrainedModel", positions: np.ndarray) -> tuple[torch.Tensor, float]:
        ids, mask = pad_rows([rows[position] for position in positions])
        logits = model(input_ids=ids, attention_mask=mask).logits[:, 0]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets[positions], weights[positions])
        return value, len(positions)

    order = np.random.default_rng(seed).permutation(len(rows))
    is_held_out = np.isin(order, held_out_rows(map(tuple, texts), max(0.1, 2 / len(rows)), seed))
    fit(
        model,
        loss,
        lengths,
        order[~is_held_out],
        order[is_held_out],
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )

    def read(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, attention_mask=mask).logits[:, 0]

    known, new = (over_rows(read, some, 4 * batch_size) for some in (rows, vocabulary.encode(others, max_length)))
    return known, new
