"""Checks on weights that nobody here trained."""
