"""Optimizers, and the moving average of weights."""
