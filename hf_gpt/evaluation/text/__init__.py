"""Measures of texts as strings: pure functions, each the algorithm behind a metric of the same name."""
