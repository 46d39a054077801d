"""Classifier two-sample test by TF-IDF and logistic regression: what single words and pairs of words give away."""

from functools import partial
from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.two_sample.classifier_test import LEAST, NUM_SPLITS, controlled_test
from hf_gpt.evaluation.two_sample.tfidf_classifier import tfidf_scores


class TfidfTest(metric.TokenMetric):
    """AUC on held-out halves of a linear classifier over n-grams, trained on the other halves, the mean over splits.

    `real_auc` is the control: the same between real texts. It takes `held_out` (more real texts) in the place of the
    generated ones, or compares the halves of the references. Takes seconds: a second opinion beside `c2st`.
    """

    source = "https://arxiv.org/abs/1610.06545"
    inputs = "predictions: generated texts. references: real texts; at least 20 of each, better 1000."
    least_predictions = LEAST
    least_references = LEAST

    def measure(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        max_order: int = 2,
        seed: int = 0,
        resamples: int = 1000,
        num_splits: int = NUM_SPLITS,
        held_out: list[list[str]] | None = None,
        with_control: bool = True,
    ) -> dict[str, Any]:
        scorer = partial(tfidf_scores, max_order=max_order)
        options = {"seed": seed, "resamples": resamples, "num_splits": num_splits, "with_control": with_control}
        metrics = controlled_test(references, predictions, scorer, held_out=held_out, **options)
        return {**metrics, "max_order": max_order, "seed": seed}
