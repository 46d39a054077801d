"""Are predicted probabilities what they say? Calibration error and Brier score."""

from sklearn.metrics import brier_score_loss

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.checks import check_binary, check_vector
from hf_gpt.evaluation.statistics.calibration import expected_calibration_error


class Calibration(metric.PairedMetric):
    """Expected calibration error over `bins` of equal width, and mean squared error (Brier score), of label 1."""

    source = "https://arxiv.org/abs/1706.04599"
    inputs = "predictions: probability of label 1 for each example. references: 0 or 1."
    predictions = "float64"
    references = "int64"

    def _compute(self, predictions: list[float], references: list[int], bins: int = 15) -> dict[str, float]:
        probabilities, labels = check_vector("predictions", predictions), check_binary("references", references)
        if probabilities.min() < 0 or probabilities.max() > 1:
            raise ValueError(
                "predictions must be probabilities from 0 to 1; found "
                f"{probabilities.min():.4g} to {probabilities.max():.4g}. Apply the sigmoid to logits first."
            )
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}.")
        return {
            "ece": expected_calibration_error(probabilities, labels, bins),
            "brier": float(brier_score_loss(labels, probabilities)),
        }
