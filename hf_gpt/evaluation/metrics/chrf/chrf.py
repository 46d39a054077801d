"""Corpus chrF of translations, by sacrebleu."""

from sacrebleu.metrics import CHRF

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.references import composed, reference_streams


class Chrf(metric.PairedMetric):
    """F-score of character n-grams over a whole corpus, from 0 to 100; `word_order=2` is chrF++.

    `signature` names all settings and the version, so that values can be compared between papers.
    """

    source = "https://aclanthology.org/W15-3049"
    inputs = "predictions: texts. references: a list of reference texts for each, all equally many."
    predictions = "string"
    references = ["string"]

    def _compute(
        self, predictions: list[str], references: list[list[str]], word_order: int = 0
    ) -> dict[str, float | str]:
        scorer = CHRF(word_order=word_order)
        score = scorer.corpus_score(composed(predictions), reference_streams(references)).score
        return {"chrf": score, "signature": str(scorer.get_signature())}
