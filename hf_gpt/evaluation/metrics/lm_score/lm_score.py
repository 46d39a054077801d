"""Quality: likelihood of generated texts under a language model trained on real ones."""

from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.language_model.word_model import lm_score


class LmScore(metric.TokenMetric):
    """`lm_score` in nats per token, the end of each text included; `lm_score_references` is that of real texts.

    Low is likely, not good: the value of real texts is the aim, and a low temperature goes below it. Read it together
    with `reverse_lm_score`. A small model over words is trained here, with early stopping on held-out real texts.
    """

    source = "https://arxiv.org/abs/1811.02549"
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
        metrics = lm_score(predictions, references, seed=seed, **training)
        return {**metrics, "n_hyps": len(predictions), "n_refs": len(references), "seed": seed}
