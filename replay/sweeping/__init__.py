"""Sweeps of thresholds over logged raw scores: what each would route, cost, catch and raise falsely."""
