"""Behavioural suites: one for each port, which a fake and the real thing both pass."""
