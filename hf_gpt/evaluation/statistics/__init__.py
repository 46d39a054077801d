"""Intervals, curves, divergences and calibration."""
