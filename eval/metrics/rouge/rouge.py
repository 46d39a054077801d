"""ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum of summaries (https://aclanthology.org/W04-1013)."""

import datasets
import evaluate
from rouge_score import rouge_scorer, scoring

from hf_gpt.eval import metric


TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class Rouge(metric.PairedMetric):
    """Mean F-measures as percentages, by the `rouge-score` package; with several references the best one counts."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="https://aclanthology.org/W04-1013",
            inputs_description="predictions: texts. references: a list of reference texts for each.",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.List(datasets.Value("string")),
                }
            ),
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]], use_stemmer: bool = True
    ) -> dict[str, float]:
        scorer = rouge_scorer.RougeScorer(TYPES, use_stemmer=use_stemmer)
        totals = dict.fromkeys(TYPES, 0.0)
        for row, (predicted, wanted) in enumerate(zip(predictions, references, strict=True)):
            if not wanted:
                raise ValueError(f"example {row} has no reference. ROUGE needs at least one.")
            best: dict[str, scoring.Score] = scorer.score_multi(wanted, predicted)
            for name in TYPES:
                totals[name] += best[name].fmeasure
        return {name: 100 * total / len(predictions) for name, total in totals.items()}
