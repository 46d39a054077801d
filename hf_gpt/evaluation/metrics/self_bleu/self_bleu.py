"""Mean BLEU of each generated text against all the others."""

from collections.abc import Sequence
from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.sentence_bleu import EPSILON, self_bleu


class SelfBleu(metric.TokenMetric):
    """How alike texts of one sample are, from 0 to 1; low is diverse. Each text is left out of its own references.

    It grows with the number of texts, so compare at equal `n_hyps`, and with equally many real texts.
    """

    source = "https://arxiv.org/abs/1802.01886"
    inputs = "predictions: texts, at least two."
    needs_references = False
    least_predictions = 2

    def measure(
        self,
        predictions: list[list[str]],
        orders: Sequence[int] = (2, 3, 4, 5),
        smoothing: str = "method1",
        epsilon: float = EPSILON,
    ) -> dict[str, Any]:
        scores = self_bleu(predictions, tuple(orders), smoothing, epsilon)
        return {
            **{f"self_bleu_{n}": float(mean) for n, mean in zip(orders, scores.mean(0), strict=True)},
            "n_hyps": len(predictions),
            "n_refs": len(predictions) - 1,
            "smoothing": smoothing,
        }
