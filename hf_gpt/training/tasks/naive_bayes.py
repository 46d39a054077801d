"""Naive Bayes of tokens, and a model whose embeddings begin from it."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel


def log_count_ratios(
    token_ids: Sequence[Sequence[int]],
    labels: Sequence[int] | Sequence[Sequence[float]],
    vocab_size: int,
    num_classes: int,
) -> np.ndarray:
    """How much more often a text of a class has a token than texts of the classes do on average, as logarithms.

    Wang and Manning (2012, section 2.1), with presence for counts, and the mean over classes for the other
    class. A text of each class is counted before the first.

    Args:
        token_ids: Tokens of each text, below `vocab_size`.
        labels: Its class, from 0 to `num_classes - 1`, or the probability of each class, as which it is counted.

    Returns:
        float64 of shape (vocab_size, num_classes); rows sum to 0, and tokens of no text have 0 throughout.
    """
    counts = np.zeros((vocab_size, num_classes))
    shares_of = np.eye(num_classes)[np.asarray(labels)] if np.ndim(labels) == 1 else np.asarray(labels, dtype=float)
    for ids, shares in zip(token_ids, shares_of, strict=True):
        counts[list(set(ids))] += shares
    logarithms = np.log((1.0 + counts) / (1.0 + counts).sum(0))
    ratios = logarithms - logarithms.mean(1, keepdims=True)
    ratios[counts.sum(1) == 0] = 0
    return ratios


def start_embeddings_from(model: PreTrainedModel, ratios: np.ndarray) -> None:
    """Adds to the embedding of each token a direction for each class, as far as its ratio says.

    A ratio of 1 is as long as an embedding is on average, so that one attention layer sees both. `ratios` are of shape
    (tokens, classes), as `log_count_ratios` gives them; the model has embeddings of at least as many tokens.
    """
    weight = model.get_input_embeddings().weight
    directions = torch.randn(ratios.shape[1], weight.shape[1], generator=torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(directions, dim=1)
    with torch.no_grad():
        length = weight.float().norm(dim=1).mean()
        weight[: len(ratios)] += (length * (torch.from_numpy(ratios).float() @ directions)).to(weight)
