"""Frechet distance of generated from real texts over features of a frozen model."""

from typing import Any

import numpy as np

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.two_sample.distances import compare_at_equal_size, frechet_distance


class FrechetDistance(metric.FeatureMetric):
    """Distance of the normal distributions fitted to both samples of features, 0 where they agree.

    The features are given as tables, or are mean hidden states of `model` for texts. It must be neither generator nor
    discriminator. The estimate is biased by the number of texts, so both sides are cut to the same `size`, and
    `floor` is what two samples of real texts of that size come to.
    """

    source = "https://arxiv.org/abs/1706.08500"

    def measure(
        self,
        predictions: np.ndarray,
        references: np.ndarray,
        size: int | None = None,
        repeats: int = 5,
        seed: int = 0,
    ) -> dict[str, Any]:
        found = compare_at_equal_size(frechet_distance, predictions, references, size, repeats, seed)
        return {"frechet_distance": found.pop("distance"), **found, "dimensions": references.shape[1], "seed": seed}
