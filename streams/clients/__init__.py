"""One outside service each, satisfying one port of `agents.ports`."""
