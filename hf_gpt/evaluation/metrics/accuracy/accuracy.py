"""Share of predictions that equal their reference."""

from hf_gpt.evaluation import metric


class Accuracy(metric.PairedMetric):
    """`compute(predictions=[1, 0], references=[1, 1])` gives `{"accuracy": 0.5}`."""

    inputs = "predictions, references: class ids, one for each example."
    predictions = "int64"
    references = "int64"

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        right = sum(predicted == expected for predicted, expected in zip(predictions, references, strict=True))
        return {"accuracy": right / len(references)}
