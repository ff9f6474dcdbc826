"""Tests of what signals need of a text."""
