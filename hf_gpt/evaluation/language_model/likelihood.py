"""Negative log-likelihood of texts under any causal language model, long texts by a sliding window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.evaluation.statistics.bootstrap import Sums, bootstrap, interval
from hf_gpt.generation.scoring.discriminator import evaluating
from hf_gpt.generation.scoring.logprobs import token_logps


if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RESAMPLES = 1000


def perplexity_of(nats: float) -> float:
    """`exp` of nats per token or word, infinite where that overflows."""
    return math.exp(nats) if nats < 700 else math.inf


def nats_per_word(name: str, nats: Sequence[float], texts: Sequence[str]) -> dict[str, float]:
    """Nats per word over all texts under `name`, with `..._low` and `..._high` of the 95 % bootstrap interval.

    Words are what blanks part, the same for all tokenizers.

    Args:
        name: Of the metric.
        nats: Negative log-likelihood of each text.
        texts: As many, none of them blank.
    """
    words = [len(text.split()) for text in texts]
    values = {"": Sums(np.stack([nats, words], 1), lambda sums: {name: sums[0] / sums[1]})}
    low, high = interval(bootstrap(values, _RESAMPLES)[""][name])
    return {name: values[""].value()[name], f"{name}_low": low, f"{name}_high": high}


@dataclass(frozen=True)
class Likelihood:
    """Likelihood of each text.

    Attributes:
        nll: In nats, float64 `(texts,)`.
        tokens: Predicted tokens, int64 `(texts,)`.
        sizes: UTF-8 bytes, int64 `(texts,)`.
    """

    nll: np.ndarray
    tokens: np.ndarray
    sizes: np.ndarray

    @property
    def nll_per_token(self) -> float:
        """Nats per token over all texts."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def perplexity(self) -> float:
        """`exp` of the nats per token over all texts, infinite where that overflows."""
        return perplexity_of(self.nll_per_token)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers, which perplexity is not."""
        return float(self.nll.sum() / math.log(2) / self.sizes.sum())


def windows(length: int, max_length: int, stride: int) -> list[tuple[int, int, int]]:
    """Windows over a row of `length` tokens whose first one is given.

    Returns:
        Start and end of each window, and its first token that no window before has predicted. Every token from 1 on is
        predicted once, after at least `max_length - stride` tokens of context where there are so many.

    Raises:
        ValueError: the stride leaves a token without context.
    """
    if not 1 <= stride < max_length:
        raise ValueError(f"stride must be from 1 to max_length - 1 = {max_length - 1}, got {stride}.")
    found, start, predicted = [], 0, 1
    while predicted < length:
        end = min(start + max_length, length)
        found.append((start, end, predicted))
        predicted, start = end, start + stride
    return found


@torch.no_grad()
def likelihood(
    model: "PreTrainedModel",
    processing_class: Any,
    texts: Sequence[str],
    *,
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> Likelihood:
    """Likelihood of each text after the BOS token, or EOS for a tokenizer without BOS.

    A special token that is spelled out in a text is text, as in training.

    Args:
        model: Any causal language model that takes `input_ids` and `attention_mask`; read without dropout.
        processing_class: Its tokenizer.
        texts: At least one.
        max_length: Tokens of a window. None: the model's limit, at most 1024.
        stride: From window to window, below `max_length`. None: half of it. A smaller stride is slower and gives each
            token more context.
        batch_size: Windows in a batch.

    Raises:
        ValueError: the tokenizer has neither BOS nor EOS, or an option does not fit.
    """
    start = processing_class.bos_token_id
    start = processing_class.eos_token_id if start is None else start
    if start is None:
        raise ValueError("the tokenizer has neither a BOS nor an EOS token to begin a text with. Set one of them.")
    if max_length is None:
        max_length = min(getattr(model.config, "max_position_embeddings", None) or 1024, 1024)
    stride = max(1, max_length // 2) if stride is None else stride
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    rows = [[start, *processing_class(text, **options)["input_ids"]] for text in texts]
    pieces = [(row, *window) for row, ids in enumerate(rows) for window in windows(len(ids), max_length, stride)]
    pieces.sort(key=lambda piece: piece[2] - piece[1])
    nll = np.zeros(len(rows))
    device = next(model.parameters()).device
    with evaluating(model):
        for first in range(0, len(pieces), batch_size):
            batch = pieces[first : first + batch_size]
            ids, mask = pad_rows([rows[row][begin:end] for row, begin, end, _ in batch], start)
            first_wanted = torch.tensor([predicted - begin for _, begin, _, predicted in batch])
            wanted = mask * (torch.arange(mask.shape[1]) >= first_wanted[:, None])
            ids = ids.to(device)
            logits = model(input_ids=ids, attention_mask=mask.to(device)).logits[:, :-1].float()
            logps = token_logps(logits, ids[:, 1:])
            sums = (logps.double().cpu() * wanted[:, 1:]).sum(1).numpy()
            np.subtract.at(nll, [piece[0] for piece in batch], sums)
    tokens = np.array([len(ids) - 1 for ids in rows])
    return Likelihood(nll, tokens, np.array([len(text.encode()) for text in texts]))
