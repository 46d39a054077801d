"""Decoding steps in C, compiled at first use with the machine's own compiler; without one PyTorch does them."""
