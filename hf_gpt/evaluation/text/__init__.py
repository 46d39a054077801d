"""Measures of texts as strings, as pure functions; `metrics` makes `evaluate` modules of them."""
