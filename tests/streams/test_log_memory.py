"""The in-memory log is a `Log`."""

import itertools
from collections.abc import AsyncIterator

import pytest_asyncio

from schemas.topics import CONTROL_EVENTS, CONTROL_POLICY, DEAD_LETTERS
from streams.log import TP, Consumer
from streams.memory import MemoryConsumer, MemoryLog
from tests.suites.delivery_suite import DeliverySuite
from tests.suites.log_suite import PARTITIONS, A, B, Bench, LogSuite


class MemoryBench(Bench):
    """A log in memory."""

    def __init__(self) -> None:
        ticks = itertools.count(1_790_000_000_000)
        counts = {
            A: PARTITIONS,
            B: PARTITIONS,
            DEAD_LETTERS: PARTITIONS,
            CONTROL_EVENTS: 1,
            CONTROL_POLICY: 1,
        }
        super().__init__(MemoryLog(counts, lambda: next(ticks)))

    async def crash(self, consumer: Consumer) -> None:
        """Be gone."""
        assert isinstance(consumer, MemoryConsumer)
        consumer.abandon()

    async def gap(self, place: TP, count: int) -> None:
        """Leave offsets out."""
        assert isinstance(self.log, MemoryLog)
        self.log.skip(place, count)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """A new log."""
    bench = MemoryBench()
    yield bench
    await bench.close()


class TestMemoryLog(LogSuite):
    """The suite on the in-memory log."""


class TestMemoryDelivery(DeliverySuite):
    """The suite on the in-memory log."""
