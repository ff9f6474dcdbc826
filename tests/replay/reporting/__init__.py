"""Tests of the report: its numbers, its page, and the page in a browser."""
