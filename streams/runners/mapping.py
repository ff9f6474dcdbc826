"""Host a stage that maps records of one topic to others, chunk by chunk, with a bounded span."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agents.errors import PolicyMissing, Unavailable
from agents.topology import Emit, MapStage
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from streams.log import TP, Commit
from streams.prefix import Prefix, Segment
from streams.runners import Group, Progress, World
from streams.suspects import CONDEMNED, poison
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
        self._burial = world.letters.of(stage.name, stage.role)
        self._slots = asyncio.Semaphore(stage.concurrency)
        self._prefixes: dict[TP, Prefix] = {}
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._progress = Progress()
        self._group: Group | None = None

    @property
    def width(self) -> int:
        """Return how many records behind the commit may have been in flight."""
        return self._stage.span

    def bind(self, group: Group) -> None:
        """Take the member that tells and records what may have ended the last process."""
        self._group = group

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
        start = 0
        while start < len(batch):
            suspect = self._group is not None and self._group.is_suspect(tp, batch[start].offset)
            chunk = batch[start : start + (1 if suspect else self._stage.chunk)]
            start += len(chunk)
            while prefix is not None and prefix.span(chunk[-1].offset + 1) > self._stage.span:
                # A role that ran ahead of one hung chunk would outrun the gather's window.
                self._moved.clear()
                await self._moved.wait()
            await self._world.pauses.running(self.group)
            await self._slots.acquire()
            crashes = await self._alone(tp, chunk[0].offset) if suspect else 0
            if prefix is None or self._prefixes.get(tp) is not prefix:
                # Assigned anew meanwhile: the rest comes again, and must not count for the new prefix.
                self._slots.release()
                return
            segment = prefix.begin(chunk[0].offset, chunk[-1].offset + 1, self._world.now())
            condemned = crashes >= CONDEMNED
            work = self._condemn(segment, chunk[0], crashes) if condemned else self._run(segment, chunk)
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._finished)
            if suspect and self._group is not None:
                await asyncio.wait([task])
                if task.cancelled() or task.exception() is not None:
                    return  # the worker ends: what runs alone stays on record
                self._group.done(tp)

    async def _alone(self, tp: TP, offset: int) -> int:
        """Let everything else end and say so; return how many processes the record there has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            return 0 if self._group is None else await self._group.alone(tp, offset)
        except Unavailable:
            return 0  # given away meanwhile, which the caller sees

    async def _condemn(self, segment: Segment, envelope: Envelope, crashes: int) -> None:
        """Bury a record that ends whatever process steps it, and report for it, unless that ends it too."""
        acks = []
        try:
            await self._burial.bury(envelope, poison(crashes), crashes)
            if crashes == CONDEMNED and (pair := await self._decoded(envelope)) is not None:
                acks = [await self._world.outbox.send(emit) for emit in self._stage.on_failure(*pair)]
        finally:
            self._slots.release()
        for ack in acks:
            await ack
        segment.done = True

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
        try:
            if self._stage.accepts is None:
                self._world.codec.check_size(envelope.value)
                return envelope, None
            return envelope, self._world.codec.decode_as(self._stage.accepts, envelope.value)
        except UndecodableError as error:
            await self._burial.bury(envelope, error)
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
        out = await self._stage.step(decoded)
        self._burial.succeeded(len(decoded))
        return [emit for emits in out for emit in emits]

    async def _one_by_one(self, decoded: Sequence[tuple[Envelope, Any]], error: Exception) -> list[Emit]:
        """Find the records that fail by themselves; bury those, keep what the others cause."""
        if len(decoded) > 1:
            return [emit for pair in decoded for emit in await self._step([pair])]
        envelope, record = decoded[0]
        await self._burial.bury(envelope, error)
        return list(self._stage.on_failure(envelope, record))

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
        widest = max((p.width for p in self._prefixes.values()), default=0)
        self._progress.buffers = {"span": (widest, self._stage.span)}
        self._progress.oldest_since = min(oldest, default=None)
        budget = int(1000 * max((policy.deadlines.infer_s for policy in self._world.book), default=0))
        self._progress.heads = {
            p: Head(prefix.oldest, prefix.oldest + budget)
            for (_, p), prefix in self._prefixes.items()
            if prefix.oldest is not None
        }
        return self._progress
