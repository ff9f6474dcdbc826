"""What each agent does: pure values in, values out; no I/O, clock, environment or global state."""
