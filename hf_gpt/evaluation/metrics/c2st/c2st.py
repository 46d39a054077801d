"""Held-out classifier two-sample test (C2ST): how well a new classifier tells generated texts from real ones."""

from functools import partial
from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.two_sample.classifier_test import LEAST, NUM_SPLITS, controlled_test
from hf_gpt.evaluation.two_sample.neural_classifier import neural_classifier_scores


class C2st(metric.TokenMetric):
    """AUC on held-out halves of a classifier trained on the other halves, the mean over splits.

    `real_auc` is the control: the same between real texts. It takes `held_out` (more real texts) in the place of the
    generated ones, or compares the halves of the references.

    Do not judge a generator by the discriminator it was trained against, which it has learned to fool. Give both
    samples in the same format (spaces before punctuation, case), or the classifier finds the difference; `surface`
    shows it. `tfidf_test` is a second opinion.
    """

    source = "https://arxiv.org/abs/1610.06545"
    inputs = "predictions: generated texts. references: real texts; at least 20 of each, better 1000."
    least_predictions = LEAST
    least_references = LEAST

    def measure(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        classifier: str = "ngram_cnn",
        seed: int = 0,
        resamples: int = 1000,
        num_splits: int = NUM_SPLITS,
        held_out: list[list[str]] | None = None,
        with_control: bool = True,
        **training: Any,
    ) -> dict[str, Any]:
        trained = partial(neural_classifier_scores, body=classifier, seed=seed, **training)
        options = {"seed": seed, "resamples": resamples, "num_splits": num_splits, "with_control": with_control}
        metrics = controlled_test(references, predictions, trained, held_out=held_out, **options)
        return {**metrics, "classifier": classifier, "seed": seed}
