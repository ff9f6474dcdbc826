"""Tests of what crosses a topic."""
