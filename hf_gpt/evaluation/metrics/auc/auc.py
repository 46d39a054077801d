"""Area under the ROC curve of scores, by scikit-learn, and its average precision."""

from sklearn.metrics import average_precision_score, roc_auc_score

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.checks import check_binary, check_vector
from hf_gpt.evaluation.two_sample.auc_interval import auc_interval, true_positive_rate


class Auc(metric.PairedMetric):
    """The probability that an example of label 1 scores above one of label 0, with its 95 % bootstrap interval.

    Scores are logits or probabilities; only their order counts. `tpr_at_1_fpr` and `tpr_at_5_fpr` are the shares of
    label 1 above the threshold that 1 % and 5 % of label 0 exceed. `average_precision` depends on how common label 1
    is.
    """

    source = "https://doi.org/10.1016/j.patrec.2005.10.010"
    inputs = "predictions: a score for each example. references: 0 or 1."
    predictions = "float64"
    references = "int64"

    def _compute(
        self, predictions: list[float], references: list[int], resamples: int = 1000, seed: int = 0
    ) -> dict[str, float]:
        scores, labels = check_vector("predictions", predictions), check_binary("references", references)
        found = auc_interval(scores[labels == 1], scores[labels == 0], resamples, seed=seed)
        return {
            "auc": float(roc_auc_score(labels, scores)),
            "auc_low": found.low,
            "auc_high": found.high,
            "tpr_at_1_fpr": true_positive_rate(scores[labels == 1], scores[labels == 0], 0.01),
            "tpr_at_5_fpr": true_positive_rate(scores[labels == 1], scores[labels == 0], 0.05),
            "average_precision": float(average_precision_score(labels, scores)),
        }
