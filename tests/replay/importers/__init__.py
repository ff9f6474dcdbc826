"""Tests of the importers of other products' request logs."""
