"""Hostile trials: what is done to checkpoints, and what must come of it."""
