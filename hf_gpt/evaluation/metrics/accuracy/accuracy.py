"""Share of predictions that equal their reference."""

import datasets
import evaluate

from hf_gpt.evaluation import metric


class Accuracy(metric.PairedMetric):
    """`compute(predictions=[1, 0], references=[1, 1])` gives `{"accuracy": 0.5}`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions, references: class ids, one for each example.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        right = sum(predicted == expected for predicted, expected in zip(predictions, references, strict=True))
        return {"accuracy": right / len(references)}
