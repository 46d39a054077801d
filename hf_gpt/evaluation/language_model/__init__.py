"""Likelihood of texts under a given language model, and under small ones that metrics train."""
