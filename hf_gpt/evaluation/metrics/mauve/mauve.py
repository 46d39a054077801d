"""MAUVE of generated texts against real ones over features of any model."""

from typing import Any

import numpy as np

from hf_gpt.evaluation import metric
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
        predictions: np.ndarray,
        references: np.ndarray,
        seeds: tuple[int, ...] = (25, 26, 27),
        **options: Any,
    ) -> dict[str, Any]:
        if not len(seeds):
            raise ValueError("seeds are missing. Give at least one.")
        runs = [mauve_score(predictions, references, seed, **options) for seed in seeds]
        means = {
            name: float(np.mean([run[name] for run in runs])) for name in ("mauve", "mauve_star", "frontier_integral")
        }
        return {
            **means,
            "mauve_spread": float(np.std([run["mauve"] for run in runs], ddof=1)) if len(runs) > 1 else 0.0,
            "num_buckets": runs[0]["num_buckets"],
            "n_hyps": len(predictions),
            "n_refs": len(references),
        }
