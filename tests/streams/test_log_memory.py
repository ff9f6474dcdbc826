"""The in-memory log is a `Log`."""

import itertools
from collections.abc import AsyncIterator

import pytest_asyncio

from streams.log import Consumer
from streams.memory import MemoryConsumer, MemoryLog
from tests.suites.log_suite import PARTITIONS, A, B, Bench, LogSuite


class MemoryBench(Bench):
    """A log in memory."""

    def __init__(self) -> None:
        ticks = itertools.count(1_790_000_000_000)
        super().__init__(MemoryLog({A: PARTITIONS, B: PARTITIONS}, lambda: next(ticks)))

    async def crash(self, consumer: Consumer) -> None:
        """Be gone."""
        assert isinstance(consumer, MemoryConsumer)
        consumer.abandon()


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """A new log."""
    bench = MemoryBench()
    yield bench
    await bench.close()


class TestMemoryLog(LogSuite):
    """The suite on the in-memory log."""
