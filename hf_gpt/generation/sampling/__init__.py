"""Rollouts: sampled texts with the log-probability of every token."""
