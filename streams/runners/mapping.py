"""Host a stage that maps records of one topic to others, chunk by chunk, with a bounded span."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agents.errors import PolicyMissing, Unavailable
from agents.step import dead_letter
from agents.topology import Emit, MapStage
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from streams.log import TP, Commit
from streams.prefix import Prefix, Segment
from streams.runners import Progress, World
from streams.vitals import Head

_RETRY_S = 0.2


class MapRunner:
    """Runs a `MapStage`: at most `concurrency` chunks are stepped at once, over at most `span` offsets.

    A slot is free again once its chunk is handed to the log. Held until the acknowledgement it would let
    through one chunk for each trip to the broker, which at a low rate is one record.
    """

    def __init__(self, stage: MapStage, world: World) -> None:
        self.group = stage.role
        self.topics = (stage.source,)
        self._stage = stage
        self._world = world
        self._slots = asyncio.Semaphore(stage.concurrency)
        self._prefixes: dict[TP, Prefix] = {}
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._progress = Progress()

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Start a prefix for each partition."""
        for tp in partitions:
            self._prefixes[tp] = Prefix(0)

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Forget the partitions; what is still in flight will be done again by their next owner."""
        for tp in partitions:
            self._prefixes.pop(tp, None)

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Cut *batch* into chunks and start each as soon as there is a slot."""
        prefix = self._prefixes.get(tp)
        for start in range(0, len(batch), self._stage.chunk):
            chunk = batch[start : start + self._stage.chunk]
            while prefix is not None and prefix.span(chunk[-1].offset + 1) > self._stage.span:
                # A role that ran ahead of one hung chunk would outrun the gather's window.
                self._moved.clear()
                await self._moved.wait()
            await self._world.pauses.running(self.group)
            await self._slots.acquire()
            if prefix is None or self._prefixes.get(tp) is not prefix:
                # Assigned anew meanwhile: the rest comes again, and must not count for the new prefix.
                self._slots.release()
                return
            segment = prefix.begin(chunk[0].offset, chunk[-1].offset + 1, self._world.now())
            task = asyncio.create_task(self._run(segment, chunk))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._moved.set()
        if not task.cancelled() and task.exception() is not None:
            self._world.telemetry.fatal(self._stage.name, task.exception())

    async def _run(self, segment: Segment, chunk: Sequence[Envelope]) -> None:
        try:
            decoded = [pair for envelope in chunk if (pair := await self._decoded(envelope)) is not None]
            emits = await self._step(decoded)
            acks = [await self._world.outbox.send(emit) for emit in emits]
        finally:
            self._slots.release()
        for ack in acks:
            await ack
        segment.done = True
        self._progress.done += len(chunk)
        self._world.telemetry.stage_done(self._stage.name, len(chunk))

    async def _decoded(self, envelope: Envelope) -> tuple[Envelope, Any] | None:
        if self._stage.accepts is None:
            return envelope, None
        try:
            return envelope, self._world.codec.decode_as(self._stage.accepts, envelope.value)
        except UndecodableError as error:
            await self._bury(envelope, error)
            return None

    async def _step(self, decoded: Sequence[tuple[Envelope, Any]]) -> list[Emit]:
        if not decoded:
            return []
        while True:
            try:
                return await self._stepped(decoded)
            except PolicyMissing:
                # It may name no policy at all: admission waits until any is active.
                self._world.telemetry.waiting(self._stage.name, "policy")
                await asyncio.sleep(_RETRY_S)
            except Unavailable:
                await asyncio.sleep(_RETRY_S)
            except Exception as error:  # noqa: BLE001 - any failure of a step is a dead letter, never a loss
                return await self._one_by_one(decoded, error)

    async def _stepped(self, decoded: Sequence[tuple[Envelope, Any]]) -> list[Emit]:
        claims = self._world.claims
        if self._stage.looks_at_bodies:
            if not claims.fits(decoded):
                middle = len(decoded) // 2
                return [*await self._step(decoded[:middle]), *await self._step(decoded[middle:])]
            decoded = await claims.at_hand(decoded)
        return [emit for out in await self._stage.step(decoded) for emit in out]

    async def _one_by_one(self, decoded: Sequence[tuple[Envelope, Any]], error: Exception) -> list[Emit]:
        """Find the records that fail by themselves; bury those, keep what the others cause."""
        if len(decoded) > 1:
            return [emit for pair in decoded for emit in await self._step([pair])]
        envelope, record = decoded[0]
        await self._bury(envelope, error)
        return list(self._stage.on_failure(envelope, record))

    async def _bury(self, envelope: Envelope, error: Exception) -> None:
        world = self._world
        await world.outbox.send_dead_letter(dead_letter(self._stage.name, envelope, error, now=world.now()))
        world.telemetry.dead_lettered(self._stage.name, envelope, error)

    def reached(self, tp: TP, position: int) -> None:
        """Let the prefix go over a gap."""
        prefix = self._prefixes.get(tp)
        if prefix is not None:
            prefix.reach(position)

    def paused(self) -> frozenset[TP]:
        """Return nothing: waiting for a slot holds the agent, and with it the reading."""
        return frozenset()

    def commits(self) -> Mapping[TP, Commit]:
        """Return the completed prefixes that moved."""
        moved = ((tp, prefix.advance()) for tp, prefix in self._prefixes.items())
        return {tp: Commit(offset) for tp, offset in moved if offset is not None}

    async def tick(self) -> None:
        """Do nothing: time alone asks for nothing."""

    async def drain(self, timeout_s: float) -> None:
        """Wait for the chunks in flight."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def progress(self) -> Progress:
        """Return how many chunks are in flight and since when."""
        oldest = [p.oldest for p in self._prefixes.values() if p.oldest is not None]
        self._progress.in_flight = len(self._tasks)
        self._progress.oldest_since = min(oldest, default=None)
        budget = int(1000 * max((policy.deadlines.infer_s for policy in self._world.book), default=0))
        self._progress.heads = {
            p: Head(prefix.oldest, prefix.oldest + budget)
            for (_, p), prefix in self._prefixes.items()
            if prefix.oldest is not None
        }
        return self._progress
