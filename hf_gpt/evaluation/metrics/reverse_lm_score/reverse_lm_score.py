"""Coverage: likelihood of real texts under a language model trained on generated ones."""

from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.language_model.word_model import reverse_lm_score
from hf_gpt.evaluation.text.tokenization import Tokenizer, get_tokenizer, tokenize


class ReverseLmScore(metric.SampleMetric):
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
        predictions: list[str],
        references: list[str],
        tokenizer: str | Tokenizer = "auto",
        seed: int = 0,
        **training: Any,
    ) -> dict[str, Any]:
        name, function = get_tokenizer(tokenizer, predictions)
        metrics = reverse_lm_score(
            tokenize(predictions, function), tokenize(references, function), seed=seed, **training
        )
        return {**metrics, "n_hyps": len(predictions), "n_refs": len(references), "tokenizer": name, "seed": seed}
