"""Maximum mean discrepancy of generated from real texts over features of a frozen model."""

from functools import partial
from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.two_sample.distances import compare_at_equal_size, median_distance, mmd
from hf_gpt.evaluation.two_sample.features import as_features


class Mmd(metric.FeatureMetric):
    """Unbiased squared MMD with a Gaussian kernel, around 0 where both samples come from one distribution.

    The features are given as tables, or are mean hidden states of `model` for texts. It must be neither generator nor
    discriminator. The bandwidth is the median distance of real texts unless given; `floor` is what two samples of real
    texts of the same `size` come to.
    """

    source = "https://jmlr.org/papers/v13/gretton12a.html"

    def measure(
        self,
        predictions: Any,
        references: Any,
        model: Any = None,
        processing_class: Any = None,
        size: int | None = None,
        bandwidth: float | None = None,
        repeats: int = 5,
        seed: int = 0,
        batch_size: int = 32,
        max_length: int = 256,
    ) -> dict[str, Any]:
        read = {"batch_size": batch_size, "max_length": max_length}
        generated = as_features("predictions", predictions, model, processing_class, **read)
        real = as_features("references", references, model, processing_class, **read)
        bandwidth = median_distance(real, seed=seed) if bandwidth is None else bandwidth
        found = compare_at_equal_size(partial(mmd, bandwidth=bandwidth), generated, real, size, repeats, seed)
        return {
            "mmd": found.pop("distance"),
            **found,
            "bandwidth": bandwidth,
            "dimensions": real.shape[1],
            "seed": seed,
        }
