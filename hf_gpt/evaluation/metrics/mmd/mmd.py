"""Maximum mean discrepancy of generated from real texts over features of a frozen model."""

from functools import partial
from typing import Any

import numpy as np

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.two_sample.distances import compare_at_equal_size, median_distance, mmd


class Mmd(metric.FeatureMetric):
    """Unbiased squared MMD with a Gaussian kernel, around 0 where both samples come from one distribution.

    The features are given as tables, or are mean hidden states of `model` for texts. It must be neither generator nor
    discriminator. The bandwidth is the median distance of real texts unless given; `floor` is what two samples of real
    texts of the same `size` come to.
    """

    source = "https://jmlr.org/papers/v13/gretton12a.html"

    def measure(
        self,
        predictions: np.ndarray,
        references: np.ndarray,
        size: int | None = None,
        bandwidth: float | None = None,
        repeats: int = 5,
        seed: int = 0,
    ) -> dict[str, Any]:
        bandwidth = median_distance(references, seed=seed) if bandwidth is None else bandwidth
        found = compare_at_equal_size(partial(mmd, bandwidth=bandwidth), predictions, references, size, repeats, seed)
        return {
            "mmd": found.pop("distance"),
            **found,
            "bandwidth": bandwidth,
            "dimensions": references.shape[1],
            "seed": seed,
        }
