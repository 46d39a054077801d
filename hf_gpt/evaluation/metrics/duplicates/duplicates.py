"""How often a sample repeats itself, text for text."""

from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.diversity import duplicate_rate, most_frequent
from hf_gpt.evaluation.text.words import normal_form


class Duplicates(metric.SampleMetric):
    """`duplicate_rate` is the share of texts that repeat an earlier one; blanks at the ends do not count.

    `most_frequent` is the text that occurs most often and `most_frequent_count` how often: the first sign of collapse.
    """

    inputs = "predictions: texts."
    needs_references = False

    def measure(self, predictions: list[str]) -> dict[str, Any]:
        texts = [" ".join(normal_form(text).split()) for text in predictions]
        text, count = most_frequent(texts)
        return {
            "duplicate_rate": duplicate_rate(texts),
            "n_unique": len(set(texts)),
            "n_hyps": len(texts),
            "most_frequent": text,
            "most_frequent_count": count,
        }
