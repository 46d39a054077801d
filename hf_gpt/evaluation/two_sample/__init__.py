"""Tests and distances of two samples of texts, as pure functions."""
