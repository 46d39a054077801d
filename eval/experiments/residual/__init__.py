"""Residual energy-based models: what a discriminator adds to the likelihood of held-out text."""
