"""The report of a replay: one HTML file that needs nothing else, and its numbers as JSON."""
