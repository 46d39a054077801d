"""Every column of the board, for a sample of a generator at a temperature, where the oracle's density is known."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from eval.experiments.common.random_language import sample_texts
from eval.experiments.oracle_board.language import START
from hf_gpt.evaluation.statistics.exact_divergence import exact_divergences
from hf_gpt.evaluation.text.copying import copied_whole, ngram_overlap


def sample(model: nn.Module, count: int, length: int, seed: int, temperature: float = 1.0) -> torch.Tensor:
    """(count, length) int64 texts of a model, by the seed."""
    return sample_texts(model, count, length, seed, temperature, batch_size=500).completions


@torch.no_grad()
def log_density(model: nn.Module, texts: torch.Tensor, temperature: float = 1.0, batch_size: int = 250) -> np.ndarray:
    """(texts,) float64 log-probabilities of whole texts (texts, length) at a temperature."""
    model.eval()
    parts = []
    for rows in texts.split(batch_size):
        ids = torch.cat([torch.full_like(rows[:, :1], START), rows[:, :-1]], 1)
        logits = model(input_ids=ids, use_cache=False).logits / temperature
        chosen = logits.gather(-1, rows[..., None])[..., 0] - logits.logsumexp(-1)
        parts.append(chosen.double().sum(1))
    return torch.cat(parts).numpy()


def measure(
    oracle: nn.Module,
    model: nn.Module,
    training: torch.Tensor,
    test: torch.Tensor,
    *,
    count: int,
    temperature: float,
    seed: int,
) -> dict[str, float]:
    """Metrics of a sample; likelihoods, entropies and divergences in nats per token with standard errors (`_error`).

    The oracle is p, the model is q: `count` texts of it are sampled at a temperature, at which its density is taken.
    """
    length = test.shape[1]
    texts = sample(model, count, length, seed, temperature)
    found = exact_divergences(
        log_density(model, texts, temperature),
        log_density(oracle, texts),
        log_density(model, test, temperature),
        log_density(oracle, test),
    )
    found = {name: value / length for name, value in found.items() if not name.startswith("jsd")}
    return {"temperature": temperature, "length": length} | found | copying(texts, training)


def lookup_table(oracle: nn.Module, training: torch.Tensor, test: torch.Tensor) -> dict[str, Any]:
    """The metrics of the generator that samples one of its training texts: q is 1/n at each of them and 0 elsewhere."""
    length, texts = training.shape[1], training.unique(dim=0)
    entropy = math.log(len(texts)) / length
    nll = float(-log_density(oracle, texts).mean() / length)
    metrics = {
        "nll_oracle": nll,
        "entropy": entropy,
        "reverse_kl": nll - entropy,
        "data_entropy": float(-log_density(oracle, test).mean() / length),
        "nll_test": None,
    }
    return {"temperature": 1.0, "length": length} | metrics | copying(texts, training)


def copying(texts: torch.Tensor, training: torch.Tensor) -> dict[str, float]:
    """Share of texts, and of their 4-grams, that stand in the training texts."""
    own, known = texts.tolist(), training.tolist()
    return {"copy_rate": float(copied_whole(own, known).mean()), "shared_ngrams": ngram_overlap(own, known, 4)}
