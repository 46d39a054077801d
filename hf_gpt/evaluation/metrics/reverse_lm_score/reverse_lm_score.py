"""Coverage: likelihood of real texts under a language model trained on generated ones."""

from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.language_model.word_model import reverse_lm_score


class ReverseLmScore(metric.TokenMetric):
    """`reverse_lm_score` in nats per token, the end of each text included; low is good.

    It punishes what is missing as well as what is wrong. It falls as the sample grows: compare equally many texts, and
    with as many real texts in their place.
    """

    source = "https://arxiv.org/abs/1706.04223"
    inputs = "predictions: generated texts. references: real texts; at least 20 of each, better 1000."
    least_predictions = 20
    least_references = 20

    def measure(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        seed: int = 0,
        **training: Any,
    ) -> dict[str, Any]:
        metrics = reverse_lm_score(predictions, references, seed=seed, **training)
        return {**metrics, "n_hyps": len(predictions), "n_refs": len(references), "seed": seed}
