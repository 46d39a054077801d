"""Texts as vectors: mean hidden states of a frozen model."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.evaluation.checks import check_features, check_texts
from hf_gpt.evaluation.models import open_model
from hf_gpt.generation.scoring.discriminator import evaluating
from hf_gpt.generation.scoring.texts import max_positions


logger = logging.getLogger(__name__)


@torch.no_grad()
def mean_hidden_states(
    model: Any, processing_class: Any, texts: Sequence[str], *, max_length: int = 256, batch_size: int = 32
) -> np.ndarray:
    """The last hidden states of each text, averaged over its tokens, padding left out.

    The model must be neither the generator nor its discriminator, and the same for all samples that are compared.

    Args:
        model: Any model of Transformers (with or without a head), or the path or Hub id of one.
        processing_class: Its tokenizer, or a path; left out, that of the path.
        texts: At least one.
        max_length: Tokens of a text that are read, where the model has positions for so many.
        batch_size: Texts in a batch.

    Returns:
        float64 array of shape `(texts, hidden_size)`; zeros for a text without tokens.

    Raises:
        ValueError: a model object came without its tokenizer.
    """
    model, processing_class = open_model(model, processing_class, "AutoModel")
    model = getattr(model, "base_model", model)
    max_length = min(max_length, max_positions(model) or max_length)
    device = next(model.parameters()).device
    rows = [processing_class(text, truncation=True, max_length=max_length)["input_ids"] for text in texts]
    full = [text for text, row in zip(texts, rows, strict=True) if len(row) >= max_length]
    longer = [processing_class(text, truncation=True, max_length=max_length + 1)["input_ids"] for text in full]
    if cut := sum(len(row) > max_length for row in longer):
        logger.warning("%d of %d texts are read up to their first %d tokens only.", cut, len(rows), max_length)
    features: list[np.ndarray | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            # A text without tokens is read as one, whose state is left out below.
            ids, mask = pad_rows([rows[row] or [0] for row in chosen])
            states = model(input_ids=ids.to(device), attention_mask=mask.to(device))
            hidden = states.last_hidden_state.double().cpu()
            means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            for n, row in enumerate(chosen):
                features[row] = means[n].numpy() * bool(rows[row])
    return np.stack(features)


def as_features(
    name: str,
    sample: Any,
    model: Any = None,
    processing_class: Any = None,
    **options: Any,
) -> np.ndarray:
    """A sample as a checked feature table: given as one, or as texts together with a model.

    Args:
        name: Of the argument, for messages.
        sample: Features `(texts, dimensions)`, or texts.
        model, processing_class, options: As in `mean_hidden_states`, for texts.

    Raises:
        ValueError: the sample is neither, or texts came without a model.
    """
    is_row = sample is not None and getattr(sample, "ndim", 1) == 1
    if is_row and isinstance(next(iter(sample), None), str):
        if model is None:
            raise ValueError(f"{name} are texts, so a model must be given that turns them into features.")
        sample = mean_hidden_states(model, processing_class, check_texts(name, sample), **options)
    return check_features(name, sample)
