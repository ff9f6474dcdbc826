"""The in-memory log is a `Log`."""

import itertools

import pytest

from streams.log import Consumer
from streams.memory import MemoryConsumer, MemoryLog
from tests.suites.log_suite import PARTITIONS, A, B, Bench, LogSuite


class MemoryBench(Bench):
    """A log in memory."""

    def __init__(self) -> None:
        ticks = itertools.count(1_790_000_000_000)
        self.log = MemoryLog({A: PARTITIONS, B: PARTITIONS}, lambda: next(ticks))

    async def crash(self, consumer: Consumer) -> None:
        """Be gone."""
        assert isinstance(consumer, MemoryConsumer)
        consumer.abandon()


@pytest.fixture
def bench() -> Bench:
    """A new log."""
    return MemoryBench()


class TestMemoryLog(LogSuite):
    """The suite on the in-memory log."""
