"""Runs that go on from a checkpoint as if they had never stopped."""
