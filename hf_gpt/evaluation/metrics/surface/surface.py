"""Tests of length and format, and how well they alone tell generated texts from real ones."""

from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.two_sample.classifier_test import LEAST, NUM_SPLITS
from hf_gpt.evaluation.two_sample.surface_tests import format_test, length_test, shortcut_test


class Surface(metric.SampleMetric):
    """Kolmogorov-Smirnov test of lengths, chi-square test of first and last characters, AUC of a shortcut classifier.

    The shortcut classifier is a logistic regression on length, case, punctuation and blanks. A `shortcut_auc` above 0.6
    says that the two samples were prepared differently; correct that before any other comparison.
    `shortcut_real_auc` is the control: the same between the halves of the references.
    """

    source = "https://arxiv.org/abs/1610.06545"
    inputs = "predictions: generated texts. references: real texts, both as they are, at least 20 of each."
    least_predictions = LEAST
    least_references = LEAST

    def measure(
        self,
        predictions: list[str],
        references: list[str],
        seed: int = 0,
        resamples: int = 1000,
        num_splits: int = NUM_SPLITS,
        with_control: bool = True,
    ) -> dict[str, Any]:
        return {
            **length_test(references, predictions),
            **format_test(references, predictions),
            **shortcut_test(references, predictions, seed, resamples, num_splits, with_control),
        }
