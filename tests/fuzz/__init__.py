"""Spoiled records through every step: no worker dies, every bad one is kept, every good one is done."""
