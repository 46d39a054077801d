"""How much of generated texts is copied from the training texts."""

import math
from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.copying import copied_whole, longest_copied_spans, ngram_overlap


class CopyRate(metric.TokenMetric):
    """Whole copies, the longest copied span of each text in tokens, and the share of n-grams that were there before.

    With `held_out` (real texts that were not trained on) the same for them, prefixed. A model copies if it is clearly
    above. `copy_rate_error` is the standard error.
    """

    source = "https://arxiv.org/abs/2111.09509"
    inputs = "predictions: generated texts. references: the training texts of the model."

    def measure(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        held_out: list[list[str]] | None = None,
        order: int = 4,
    ) -> dict[str, Any]:
        result = _metrics(predictions, references, order)
        if held_out is not None:
            others = _metrics(held_out, references, order)
            result |= {f"held_out_{key}": value for key, value in others.items()}
        return {**result, "n_hyps": len(predictions), "n_refs": len(references)}


def _metrics(texts: list[list[str]], references: list[list[str]], order: int) -> dict[str, float | int]:
    rate = float(copied_whole(texts, references).mean())
    spans = longest_copied_spans(texts, references)
    shares = [span / max(len(text), 1) for span, text in zip(spans.tolist(), texts, strict=True)]
    return {
        "copy_rate": rate,
        "copy_rate_error": math.sqrt(rate * (1 - rate) / len(texts)),
        "longest_span": int(spans.max()),
        "mean_longest_span": float(spans.mean()),
        "mean_longest_share": sum(shares) / len(shares),
        f"overlap_{order}": ngram_overlap(texts, references, order),
    }
