"""Metrics, reports and experiments."""

from .loading import compute, load, metric_names


__all__ = ["compute", "load", "metric_names"]
