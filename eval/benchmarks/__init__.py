"""Benchmarks: speed against peers, and what only an accelerator can show."""
