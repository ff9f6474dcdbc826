"""Tests against real Kafka, Triton and worker processes."""
