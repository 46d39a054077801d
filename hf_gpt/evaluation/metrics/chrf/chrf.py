"""Corpus chrF of translations, by sacrebleu."""

from typing import Any

from sacrebleu.metrics import CHRF

from hf_gpt.evaluation import metric


class Chrf(metric.CorpusMetric):
    """F-score of character n-grams over a whole corpus, from 0 to 100; `word_order=2` is chrF++."""

    source = "https://aclanthology.org/W15-3049"

    def scorers(self, references: list[list[str]], word_order: int = 0) -> dict[str, Any]:
        return {"chrf": CHRF(word_order=word_order)}
