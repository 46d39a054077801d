"""Distinct-n: different n-grams among all n-grams of a sample."""

from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.diversity import distinct_ngrams


class DistinctN(metric.TokenMetric):
    """Ratio of different n-grams to all, of 1 to `max_order` tokens; high is diverse.

    The ratio falls as a sample grows: compare samples of equally many tokens (`tokens` is in the result). An order that
    no text is long enough for is NaN.
    """

    source = "https://arxiv.org/abs/1510.03055"
    inputs = "predictions: texts."
    needs_references = False

    def measure(self, predictions: list[list[str]], max_order: int = 4) -> dict[str, Any]:
        if max_order < 1:
            raise ValueError(f"max_order must be at least 1, got {max_order}.")
        counts = distinct_ngrams(predictions, max_order)
        ratios = {f"distinct_{n}": some / all_ if all_ else float("nan") for n, (some, all_) in enumerate(counts, 1)}
        unique = {f"unique_{n}": some for n, (some, _) in enumerate(counts, 1)}
        return {**ratios, **unique, "tokens": counts[0][1], "n_hyps": len(predictions)}
