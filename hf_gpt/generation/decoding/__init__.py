"""Decoding from packed weights and a static cache, behind `generate`."""
