"""Classifier two-sample test by TF-IDF and logistic regression: what single words and pairs of words give away."""

from functools import partial
from typing import Any

from hf_gpt.eval import metric
from hf_gpt.eval.text.tokenization import Tokenizer, get_tokenizer, tokenize
from hf_gpt.eval.two_sample.halves import LEAST, classifier_test
from hf_gpt.eval.two_sample.tfidf import tfidf_scores


class TfidfTest(metric.SampleMetric):
    """AUC, on held-out halves, of a linear classifier over n-grams learnt on the other halves; 0.5: none is found.

    Deterministic, without a neural network, done in seconds: a second opinion beside `c2st`.
    """

    source = "https://arxiv.org/abs/1610.06545"
    inputs = "predictions: generated texts. references: real texts; at least 20 of each, better 1000."
    least_predictions = LEAST
    least_references = LEAST

    def measure(
        self,
        predictions: list[str],
        references: list[str],
        max_order: int = 2,
        tokenizer: str | Tokenizer = "auto",
        seed: int = 0,
        resamples: int = 1000,
    ) -> dict[str, Any]:
        name, function = get_tokenizer(tokenizer, predictions)
        real, generated = tokenize(references, function), tokenize(predictions, function)
        scorer = partial(tfidf_scores, max_order=max_order)
        figures = classifier_test(real, generated, scorer, seed, resamples)
        return {**figures, "max_order": max_order, "tokenizer": name, "seed": seed}
