"""Host the retry tiers: each record goes back to its topic and partition when it is due.

A tier is first in, first due: its partition is simply not read on until its head is due. What was
fetched and is not due waits in memory, at most a few fetches for each partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field

from agents.retry import next_tier, wakes_at
from agents.topology import Emit, RetryStage
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from schemas.retry import Retry
from streams.log import TP, Commit, Placed
from streams.prefix import Prefix, Segment
from streams.runners import Progress, World
from streams.vitals import Head

_AT_ONCE = 500
MOST_WAITING = 5_000
"""Records of one partition in memory: a tier that is not due is paused, but what was fetched comes still."""


@dataclass(slots=True)
class _Tier:
    """One partition of a tier: what is not due yet, and what is committed."""

    prefix: Prefix
    waiting: deque[tuple[Segment, Envelope, Retry]] = field(default_factory=deque)


class RetryRunner:
    """Runs the `RetryStage`."""

    def __init__(self, stage: RetryStage, world: World) -> None:
        self.group = stage.role
        self.topics = stage.sources
        self._stage = stage
        self._world = world
        self._burial = world.letters.of(stage.name, stage.role)
        self._tiers: dict[TP, _Tier] = {}
        self._progress = Progress()

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Start with nothing in memory."""
        for tp in partitions:
            self._tiers[tp] = _Tier(Prefix(0))

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Forget what waits: the next owner reads it again."""
        for tp in partitions:
            self._tiers.pop(tp, None)

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Take records in; those that are due go on with the next tick."""
        tier = self._tiers.get(tp)
        if tier is None:
            return
        for envelope in batch:
            segment = tier.prefix.begin(envelope.offset, envelope.offset + 1, self._world.now())
            try:
                retry: Retry = self._world.codec.decode_as(Retry, envelope.value)
            except UndecodableError as error:
                await self._burial.bury(envelope, error)
                segment.done = True
            else:
                tier.waiting.append((segment, envelope, retry))

    async def tick(self) -> None:
        """Return what is due, at most some hundreds of records of a tier at once."""
        for tier in list(self._tiers.values()):
            await self._return_due(tier)

    async def _return_due(self, tier: _Tier) -> None:
        now = self._world.now()
        sent: list[tuple[Segment, Awaitable[Placed]]] = []
        while tier.waiting and len(sent) < _AT_ONCE and wakes_at(*tier.waiting[0][1:]) <= now:
            segment, envelope, retry = tier.waiting.popleft()
            sent.append((segment, await self._send_on(envelope, retry, now)))
        for segment, ack in sent:
            await ack
            segment.done = True
        if sent:
            self._progress.done += len(sent)
            self._burial.succeeded(len(sent))
            self._world.telemetry.stage_done(self._stage.name, len(sent))

    async def _send_on(self, envelope: Envelope, retry: Retry, now: int) -> Awaitable[Placed]:
        tier = next_tier(retry, now)
        if tier is not None:
            return await self._world.outbox.send(Emit(tier, envelope.partition, envelope.key or b"", retry))
        headers = [(header.key, header.value) for header in retry.headers]
        place = (retry.topic, retry.partition)
        return await self._world.outbox.send_packed(place, retry.key, retry.value, headers)

    def reached(self, tp: TP, position: int) -> None:
        """Let the prefix go over a gap."""
        tier = self._tiers.get(tp)
        if tier is not None:
            tier.prefix.reach(position)

    def paused(self) -> frozenset[TP]:
        """Return the partitions of which something in memory is not due yet."""
        return frozenset(tp for tp, tier in self._tiers.items() if tier.waiting)

    def commits(self) -> Mapping[TP, Commit]:
        """Return the completed prefixes that moved."""
        moved = ((tp, tier.prefix.advance()) for tp, tier in self._tiers.items())
        return {tp: Commit(offset) for tp, offset in moved if offset is not None}

    async def drain(self, timeout_s: float) -> None:
        """Return at once: what waits in memory waits in its topic, too."""
        del timeout_s

    def progress(self) -> Progress:
        """Return how many records wait in memory; waiting is what they are here for."""
        waiting = sum(len(tier.waiting) for tier in self._tiers.values())
        self._progress.in_flight = waiting
        self._progress.waiting_for = "due" if waiting else ""
        self._progress.heads = _heads(self._tiers)
        most = max((len(tier.waiting) for tier in self._tiers.values()), default=0)
        self._progress.buffers = {"waiting": (most, MOST_WAITING)}
        return self._progress


def _heads(tiers: Mapping[TP, _Tier]) -> Mapping[int, Head]:
    """Return, for each partition, the oldest record of the tier that is due first."""
    heads: dict[int, Head] = {}
    for (_, p), tier in tiers.items():
        since = tier.prefix.oldest
        if since is not None:
            due = wakes_at(*tier.waiting[0][1:]) if tier.waiting else 0
            heads[p] = min(heads.get(p, Head(since, due)), Head(since, due), key=lambda head: head.until)
    return heads
