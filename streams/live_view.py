"""The running topics as a log that does not change: up to the ends that they had when it was opened.

For readers that do not await: records are fetched as they are read, and none is kept.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

from schemas.codec import SchemaEntry, committed
from schemas.envelope import Envelope
from streams.cli import connected
from streams.log import TP, Log
from streams.runners import World
from streams.settings import Settings

_AT_ONCE = 2000
_Answer = TypeVar("_Answer")


class _Loop:
    """An event loop in a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="topics", daemon=True)
        self._thread.start()

    def wait_for(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Run *work* there and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class TopicView:
    """The topics of *log*, each partition from its begin to its end of that moment."""

    def __init__(
        self, loop: _Loop, log: Log, spans: Mapping[TP, tuple[int, int]], policies: Mapping[str, str]
    ) -> None:
        self._loop = loop
        self._log = log
        self._spans = spans
        self._policies = policies

    def topics(self) -> Mapping[str, int]:
        """Return topic -> partitions."""
        counts: dict[str, int] = {}
        for topic, partition in self._spans:
            counts[topic] = max(counts.get(topic, 0), partition + 1)
        return counts

    def schemas(self) -> Mapping[int, SchemaEntry]:
        """Return the committed schemas."""
        return committed()

    def policies(self) -> Mapping[str, str]:
        """Return hash -> normal form."""
        return self._policies

    def read(self, topic: str, partition: int | None = None) -> Iterator[Envelope]:
        """Yield the records of *topic*, partition by partition; raises `Unavailable`."""
        for place in sorted(self._spans):
            if place[0] == topic and partition in (None, place[1]):
                yield from self._read(place)

    def _read(self, place: TP) -> Iterator[Envelope]:
        begin, end = self._spans[place]
        if begin >= end:
            return
        records = self._log.read({place: begin})
        try:
            while some := self._loop.wait_for(_some(records)):
                yield from (envelope for envelope in some if envelope.offset < end)
                if some[-1].offset >= end - 1:
                    return
        finally:
            self._loop.wait_for(_closed(records))


async def _some(records: AsyncIterator[Envelope]) -> list[Envelope]:
    found: list[Envelope] = []
    async for envelope in records:
        found.append(envelope)
        if len(found) == _AT_ONCE:
            break
    return found


async def _closed(records: Any) -> None:
    await records.aclose()


async def _view(loop: _Loop, world: World) -> TopicView:
    log = world.log
    places = [(topic, p) for topic in await log.topics() for p in range(await log.partitions(topic))]
    begins, ends = await log.begins(places), await log.ends(places)
    policies = {policy.hash: policy.normal_form for policy in world.policies.book}
    return TopicView(loop, log, {place: (begins[place], ends[place]) for place in places}, policies)


@contextmanager
def topics_at(found: Settings) -> Iterator[TopicView]:
    """Connect to the running log and give its topics; raises `Unavailable`, `ConfigError`."""
    loop, stack = _Loop(), AsyncExitStack()
    try:
        world = loop.wait_for(stack.enter_async_context(connected(found)))
        yield loop.wait_for(_view(loop, world))
    finally:
        loop.wait_for(stack.aclose())
        loop.close()
