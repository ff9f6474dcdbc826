"""Tests of sweeps: against deciding one by one, and against labels whose truth is known."""
