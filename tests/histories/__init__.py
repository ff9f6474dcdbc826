"""Logs that earlier versions of the engine kept, and what records a new one."""
