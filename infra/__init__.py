"""Launchers of the local stack and the simulated providers; no routing logic."""
