"""Perplexity and bits per byte of texts under a causal language model."""

from typing import Any

import numpy as np

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.language_model.likelihood import likelihood
from hf_gpt.evaluation.models import open_model


class Perplexity(metric.SampleMetric):
    """Over all texts together, long ones by a sliding window; every token is predicted once, the first after BOS.

    `bits_per_byte` compares models with different tokenizers, `perplexity` only those with the same.
    `mean_perplexity` is the mean over texts, which single strange texts dominate.
    """

    source = "https://huggingface.co/docs/transformers/perplexity"
    inputs = "predictions: texts. model: a causal language model or its path; processing_class: its tokenizer."
    needs_references = False

    def measure(
        self,
        predictions: list[str],
        model: Any = None,
        processing_class: Any = None,
        max_length: int | None = None,
        stride: int | None = None,
        batch_size: int = 8,
    ) -> dict[str, Any]:
        opened = open_model(model, processing_class)
        found = likelihood(*opened, predictions, max_length=max_length, stride=stride, batch_size=batch_size)
        if not found.tokens.sum():
            raise ValueError("predictions hold no tokens: every text is empty.")
        some = found.tokens > 0
        return {
            "perplexity": found.perplexity,
            "bits_per_byte": found.bits_per_byte,
            "nll_per_token": found.nll_per_token,
            "mean_perplexity": float(np.exp(found.nll[some] / found.tokens[some]).mean()),
            "tokens": int(found.tokens.sum()),
            "bytes": int(found.sizes.sum()),
        }
