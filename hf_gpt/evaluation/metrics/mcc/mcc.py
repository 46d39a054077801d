"""Matthews correlation coefficient of class ids, by scikit-learn."""

from sklearn.metrics import matthews_corrcoef

from hf_gpt.evaluation import metric


class Mcc(metric.PairedMetric):
    """From -1 to 1, 0 for predictions that tell nothing, also where one class is rare; for any number of classes."""

    source = "https://doi.org/10.1016/0005-2795(75)90109-9"
    inputs = "predictions, references: class ids, one for each example."
    predictions = "int64"
    references = "int64"

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"mcc": float(matthews_corrcoef(references, predictions))}
