"""The log in memory: the same port as Kafka's, for `signalbox run` and for tests.

A group's members share its partitions by range, as the Kafka one does; `MemoryConsumer.abandon`
is a crash: the member is gone and nothing is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from agents.errors import Unavailable
from schemas.envelope import Envelope
from streams.log import TP, Commit, Listener, Placed, fenced
from streams.spill import Records, Spill

_MAX_POLL = 500
_MAX_READ = 2000


@dataclass(slots=True)
class _Group:
    members: dict[str, MemoryConsumer] = field(default_factory=dict)
    commits: dict[TP, Commit] = field(default_factory=dict)


class MemoryLog:
    """A log of one process; *clock* gives ms since the epoch and stamps each record on arrival.

    With a *spill* only the newest records of each partition stay in memory.
    """

    def __init__(
        self,
        topics: Mapping[str, int],
        clock: Callable[[], int],
        *,
        prefix: str = "signalbox",
        spill: Spill | None = None,
    ) -> None:
        self.prefix = prefix
        self._clock = clock
        self._spill = spill
        self._records: dict[TP, Records] = {
            (t, p): Records(spill) for t, n in topics.items() for p in range(n)
        }
        self._counts = dict(topics)
        self._begins: dict[TP, int] = {}
        self._groups: dict[str, _Group] = {}
        self._arrived = asyncio.Event()

    async def start(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def stop(self) -> None:
        """Do nothing: the records stay readable."""

    async def cluster_id(self) -> str:
        """Return the identity of this log."""
        return "memory"

    async def partitions(self, topic: str) -> int:
        """Return how many partitions *topic* has."""
        return self._counts.get(topic, 0)

    async def topics(self) -> Sequence[str]:
        """Return the topics, sorted."""
        return sorted(self._counts)

    def add_topic(self, topic: str, partitions: int) -> None:
        """Create *topic*."""
        self._counts[topic] = partitions
        for p in range(partitions):
            self._records.setdefault((topic, p), Records(self._spill))

    async def send(
        self,
        place: TP,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Awaitable[Placed]:
        """Append a record."""
        placed = self.append(place, key, value, headers)
        done: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()
        done.set_result(placed)
        return done

    def append(
        self,
        place: TP,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp: int | None = None,
    ) -> Placed:
        """Append a record now; *timestamp* overrides the log's own, for tests of lateness."""
        if place not in self._records:
            message = f"topic {place[0]!r} has no partition {place[1]}; create it from the catalogue"
            raise Unavailable(message)
        records = self._records[place]
        when = self._clock() if timestamp is None else timestamp
        records.append(Envelope(place[0], place[1], len(records), when, key, value, tuple(headers)))
        self._wake()
        return Placed(len(records) - 1, when)

    def skip(self, place: TP, count: int) -> None:
        """Use up *count* offsets without a record, as compaction and transactions do on a broker."""
        for _ in range(count):
            self._records[place].append(None)
        self._wake()

    def trim(self, place: TP, offset: int) -> None:
        """Hold nothing of *place* before *offset* any more, as if a broker's retention had dropped it."""
        self._begins[place] = max(self._begins.get(place, 0), min(offset, len(self._records[place])))

    def consumer(self, group: str, topics: Sequence[str], instance: str) -> MemoryConsumer:
        """Return a new member of *group*."""
        return MemoryConsumer(self, self._groups.setdefault(group, _Group()), topics, instance)

    async def begins(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        """Return the first offset of each partition: 0 unless it was trimmed."""
        return {tp: self._begins.get(tp, 0) for tp in partitions}

    async def ends(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        """Return the length of each partition."""
        return {tp: len(self._records[tp]) for tp in partitions}

    async def read(self, start: Mapping[TP, int], *, follow: bool = False) -> AsyncIterator[Envelope]:
        """Iterate from *start* to the present ends, or for ever."""
        position = dict(start)
        while True:
            before = self._arrived
            for tp, offset in position.items():
                end = len(self._records[tp])
                for envelope in self._between(tp, offset, end):
                    yield envelope
                position[tp] = end  # what was appended meanwhile is of the next round
            if not follow:
                return
            if all(len(self._records[tp]) == offset for tp, offset in position.items()):
                await before.wait()

    def _between(self, tp: TP, start: int, end: int) -> Iterator[Envelope]:
        """Iterate over the records of *tp* at offsets *start* to *end*, a piece at a time."""
        start = max(start, self._begins.get(tp, 0))
        while start < end:
            records, start = self.slice(tp, start, min(_MAX_READ, end - start))
            yield from records

    def envelopes(self, topic: str) -> list[Envelope]:
        """Return every record of *topic*, partition by partition."""
        places = [(topic, p) for p in range(self._counts.get(topic, 0))]
        return [e for place in places for e in self._between(place, 0, len(self._records[place]))]

    def slice(self, tp: TP, start: int, limit: int) -> tuple[list[Envelope], int]:
        """Return the records of *tp* at up to *limit* offsets from *start*, and the offset behind them.

        Where those at *start* were trimmed it is from the first that is left on.
        """
        start = max(start, self._begins.get(tp, 0))
        found = self._records[tp].part(start, start + limit)
        return [e for e in found if e is not None], start + len(found)

    async def wait(self, timeout_s: float) -> None:
        """Return when a record arrives anywhere, or after *timeout_s* seconds."""
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()

    async def rebalance(self, group: _Group) -> None:
        """Share the partitions of *group* among its members by range."""
        names = sorted(group.members)
        for known in list(group.members.values()):
            await known.revoke()
        for index, name in enumerate(names):
            member = group.members.get(name)
            if member is not None:
                await member.assign(
                    frozenset(
                        (topic, p)
                        for topic in member.subscribed
                        for p in _range_of(self._counts.get(topic, 0), len(names), index)
                    )
                )
        self._wake()


def _range_of(partitions: int, members: int, index: int) -> range:
    """Return the partitions of member *index*, as Kafka's range assignor shares them."""
    each, extra = divmod(partitions, members)
    start = each * index + min(index, extra)
    return range(start, start + each + (1 if index < extra else 0))


class MemoryConsumer:
    """A member of a group of a `MemoryLog`."""

    def __init__(self, log: MemoryLog, group: _Group, topics: Sequence[str], instance: str) -> None:
        self.subscribed = tuple(topics)
        self._log = log
        self._group = group
        self._instance = instance
        self._position: dict[TP, int] = {}
        self._paused: frozenset[TP] = frozenset()
        self._joined = False
        self._sought: Mapping[TP, int] = {}
        self._on_assigned: Listener | None = None
        self._on_revoked: Listener | None = None

    async def start(self, on_assigned: Listener, on_revoked: Listener) -> None:
        """Join the group."""
        self._on_assigned, self._on_revoked = on_assigned, on_revoked
        self._group.members[self._instance] = self
        self._joined = True
        await self._log.rebalance(self._group)

    async def revoke(self) -> None:
        """Tell the listener that everything is taken away."""
        if self._position and self._on_revoked is not None:
            await self._on_revoked(frozenset(self._position))
        self._position.clear()

    async def assign(self, partitions: frozenset[TP]) -> None:
        """Tell the listener what is assigned, then resume from the committed offsets; pauses are lost."""
        self._paused, self._sought = frozenset(), {}
        if self._on_assigned is not None:
            await self._on_assigned(partitions)
        commits = self._group.commits
        committed = {tp: commits[tp].offset if tp in commits else 0 for tp in partitions}
        self._position = {**committed, **self._sought}

    async def poll(self, timeout_s: float) -> Mapping[TP, Sequence[Envelope]]:
        """Return what is new; nothing is awaited after the fetch, so that no rebalance comes between."""
        await asyncio.sleep(0)
        if self._joined and self._group.members.get(self._instance) is not self:
            raise fenced(self._instance)
        found = self._fetch()
        if not found:
            await self._log.wait(timeout_s)
            found = self._fetch()
        return found

    def _fetch(self) -> dict[TP, list[Envelope]]:
        found: dict[TP, list[Envelope]] = {}
        for tp, offset in self._position.items():
            if tp in self._paused:
                continue
            records, self._position[tp] = self._log.slice(tp, offset, _MAX_POLL)
            if records:
                found[tp] = records
        return found

    def reached(self) -> Mapping[TP, int]:
        """Return the next offset of each partition."""
        return self._position

    def seek(self, offsets: Mapping[TP, int]) -> None:
        """Read on from *offsets* once the assignment is taken over."""
        self._sought = offsets

    def pause(self, partitions: frozenset[TP]) -> None:
        """Give out nothing of *partitions*."""
        self._paused = partitions

    async def commit(self, offsets: Mapping[TP, Commit]) -> None:
        """Commit; a member that was removed may not."""
        if self._group.members.get(self._instance) is not self:
            message = f"{self._instance} is no longer a member of its group"
            raise Unavailable(message)
        self._group.commits.update(offsets)

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, Commit]:
        """Return what the group committed."""
        return {tp: self._group.commits[tp] for tp in partitions if tp in self._group.commits}

    async def stop(self) -> None:
        """Leave the group."""
        self._joined = False
        if self._group.members.get(self._instance) is self:
            await self.revoke()
            del self._group.members[self._instance]
            await self._log.rebalance(self._group)

    def abandon(self) -> None:
        """Crash: be gone without a word; the next member that joins takes over."""
        self._joined = False
        if self._group.members.get(self._instance) is self:
            del self._group.members[self._instance]
        self._position.clear()
