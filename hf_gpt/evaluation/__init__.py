"""Metrics, and the tasks that `hf-gpt eval` measures by them."""

from hf_gpt.evaluation.loading import compute, load, metric_names


__all__ = ["compute", "load", "metric_names"]
