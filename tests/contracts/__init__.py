"""What must hold for every member of a registry, a catalogue or a list: tests that enumerate."""
