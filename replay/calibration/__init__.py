"""Calibration: how often the intervals hold the truth, in invented worlds where it is known."""
