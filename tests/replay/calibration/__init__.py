"""Tests of the calibration harness: it must be able to fail."""
