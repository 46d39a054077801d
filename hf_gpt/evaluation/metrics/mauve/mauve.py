"""MAUVE of generated texts against real ones over features of any model."""

from typing import Any

import numpy as np

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.two_sample.features import as_features
from hf_gpt.evaluation.two_sample.mauve_score import mauve_score


class Mauve(metric.FeatureMetric):
    """Area under the divergence frontier of both samples after clustering, from 0 to 1; 1 is the same distribution.

    Values compare only for the same features, number of texts and number of buckets. Clustering is random: `mauve` is
    the mean over `seeds`, `mauve_spread` the standard deviation. A steady value needs about 5,000 texts. Good models
    are all near 1. The published default downloads gpt2-large; this one downloads nothing.
    """

    source = "https://arxiv.org/abs/2102.01454"

    def measure(
        self,
        predictions: Any,
        references: Any,
        model: Any = None,
        processing_class: Any = None,
        seeds: tuple[int, ...] = (25, 26, 27),
        batch_size: int = 32,
        max_length: int = 256,
        **options: Any,
    ) -> dict[str, Any]:
        read = {"batch_size": batch_size, "max_length": max_length}
        generated = as_features("predictions", predictions, model, processing_class, **read)
        real = as_features("references", references, model, processing_class, **read)
        if not len(seeds):
            raise ValueError("seeds are missing. Give at least one.")
        runs = [mauve_score(generated, real, seed, **options) for seed in seeds]
        means = {
            name: float(np.mean([run[name] for run in runs])) for name in ("mauve", "mauve_star", "frontier_integral")
        }
        return {
            **means,
            "mauve_spread": float(np.std([run["mauve"] for run in runs], ddof=1)) if len(runs) > 1 else 0.0,
            "num_buckets": runs[0]["num_buckets"],
            "n_hyps": len(generated),
            "n_refs": len(real),
        }
