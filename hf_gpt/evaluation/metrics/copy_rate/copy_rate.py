"""How much of generated texts is copied from the training texts."""

import math
from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.checks import check_texts
from hf_gpt.evaluation.text.copying import copied_whole, longest_copied_spans, ngram_overlap
from hf_gpt.evaluation.text.tokenization import Tokenizer, get_tokenizer, tokenize


class CopyRate(metric.SampleMetric):
    """Whole copies, the longest copied span of each text in tokens, and the share of n-grams that were there before.

    With `held_out` (real texts that were not trained on) the same for them, prefixed. A model copies if it is clearly
    above. `copy_rate_error` is the standard error.
    """

    source = "https://arxiv.org/abs/2111.09509"
    inputs = "predictions: generated texts. references: the training texts of the model."

    def measure(
        self,
        predictions: list[str],
        references: list[str],
        held_out: list[str] | None = None,
        order: int = 4,
        tokenizer: str | Tokenizer = "auto",
    ) -> dict[str, Any]:
        name, function = get_tokenizer(tokenizer, predictions)
        known = tokenize(references, function)
        result = _metrics(tokenize(predictions, function), known, order)
        if held_out is not None:
            others = _metrics(tokenize(check_texts("held_out", held_out), function), known, order)
            result |= {f"held_out_{key}": value for key, value in others.items()}
        return {**result, "n_hyps": len(predictions), "n_refs": len(references), "tokenizer": name}


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
