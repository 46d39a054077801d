"""Texts and examples: reading, splitting, tokenising, packing, streaming."""
