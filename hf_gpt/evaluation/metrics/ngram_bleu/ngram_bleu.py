"""Mean sentence BLEU of generated texts against all real texts at once."""

from collections.abc import Sequence
from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.sentence_bleu import EPSILON, ngram_bleu


class NgramBleu(metric.TokenMetric):
    """BLEU-n as text-GAN benchmarks use it: of each text against every reference, averaged; from 0 to 1.

    Every reference and prediction counts. Published code takes the first 500 references (Texygen), 100 predictions
    (RelGAN) or 200 (TextGAN-PyTorch). Values compare only at equal `n_refs`, `n_hyps`, `smoothing` and `tokenizer`;
    all are in the result. Compare with the value of real texts: more than that is mode-seeking, not quality.
    """

    source = "https://aclanthology.org/P02-1040, https://arxiv.org/abs/1802.01886"
    inputs = "predictions: generated texts. references: real texts, of any number."

    def measure(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        orders: Sequence[int] = (2, 3, 4, 5),
        smoothing: str = "method1",
        epsilon: float = EPSILON,
    ) -> dict[str, Any]:
        scores = ngram_bleu(predictions, references, tuple(orders), smoothing, epsilon)
        return {
            **{f"bleu_{n}": float(mean) for n, mean in zip(orders, scores.mean(0), strict=True)},
            "n_hyps": len(predictions),
            "n_refs": len(references),
            "smoothing": smoothing,
        }
