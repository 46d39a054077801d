"""Runs Transformers' own model tests, of the installed version, over this project's model classes."""
