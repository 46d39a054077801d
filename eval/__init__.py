"""Metrics, reports and experiments."""

from .loading import compute, load, metric_names
from .model_card import model_index


__all__ = ["compute", "load", "metric_names", "model_index"]
