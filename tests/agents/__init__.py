"""Tests of what the agents do, and why."""
