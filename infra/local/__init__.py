"""The local stack: real components started, watched and stopped on one machine."""
