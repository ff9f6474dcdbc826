"""Host runners on Faust: the only module that creates a Faust app.

Our consumer carries the data, Faust hosts the agents: fetched partition batches go into a
channel, a Faust agent iterates them. The app never connects by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import faust
from faust.app.base import BootStrategy

from agents.errors import Unavailable
from schemas.codec import Codec
from schemas.envelope import Envelope
from streams.commits import Commits
from streams.log import TP, Consumer, Log
from streams.observed import ObservedConsumer
from streams.pauses import Pauses
from streams.runners import Runner
from streams.telemetry import Telemetry
from streams.vitals import Vitals

_POLL_S = 0.2
_COMMIT_S = 0.5
_TICK_S = 0.1
_CHANNEL = 64
_LAST_COMMIT_S = 5.0
_FULL = 8
"""So many batches in the channel, and nothing more is read until the agent has caught up."""


class _ChannelsOnly(BootStrategy):
    """Start agents, and nothing that would connect to a broker of Faust's own."""

    enable_kafka = False
    enable_web = False
    enable_sensors = False


class _App(faust.App):
    BootStrategy = _ChannelsOnly

    def _create_directories(self) -> None:
        """Make no folder for tables: there are none."""

    def _new_consumer(self) -> Any:
        # Streams ask for Faust's consumer, which is never started; its thread's event loop is closed
        # at once, since nothing would close it later.
        consumer: Any = super()._new_consumer()
        consumer._thread.thread_loop.close()  # noqa: SLF001 - Faust offers no other way
        return consumer


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition, under one assignment; nothing else lies before `reached`."""

    tp: TP
    records: Sequence[Envelope]
    generation: int
    reached: int


class Host:
    """Runs one runner: pumps its topics into a Faust agent, commits, ticks, and drains at the end."""

    def __init__(
        self, runner: Runner, log: Log, telemetry: Telemetry, instance: str, pauses: Pauses | None = None
    ) -> None:
        self.runner = runner
        self._pauses = pauses or Pauses(Codec())
        self._telemetry = telemetry
        group = f"{log.prefix}.{runner.group}"
        self.consumer = ObservedConsumer(log.consumer(group, runner.topics, instance))
        self._consumer: Consumer = self.consumer
        self._put = 0
        self._taken = 0
        self._commits = Commits(self._consumer, log, instance, runner.commits)
        if hasattr(runner, "bind"):
            runner.bind(self._commits)
        self._generation = 0
        self._handed: dict[TP, int] = {}
        self._assigned: frozenset[TP] = frozenset()
        self._channel: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._failed = False
        self.assigned_once = asyncio.Event()

    def attach(self, app: faust.App) -> None:
        """Add this host's channel and agent to *app*."""
        self._channel = app.channel(maxsize=_CHANNEL)
        agent: Any = self._agent
        app.agent(self._channel, name=self.runner.group)(agent)

    async def _agent(self, stream: AsyncIterator[Batch]) -> None:
        async for batch in stream:
            await self._pauses.running(self.runner.group)
            if batch.generation == self._generation and not self._failed:
                try:
                    await self._take(batch)
                except Exception as error:  # noqa: BLE001 - Faust would drop the batch and go on
                    self._fail(error)
            self._taken += 1

    async def _take(self, batch: Batch) -> None:
        if batch.records:
            try:
                await self._commits.open()
            except Unavailable:
                return  # revoked meanwhile: its next owner reads the batch again
            if batch.generation == self._generation:
                await self.runner.process(batch.tp, batch.records)
        if batch.generation == self._generation:
            self.runner.reached(batch.tp, batch.reached)

    def _fail(self, error: BaseException) -> None:
        """Give up: what comes after a lost batch must be neither processed nor committed."""
        self._failed = True
        self._telemetry.fatal(self.runner.group, error)

    async def start(self) -> None:
        """Join the group and begin."""
        await self._consumer.start(self._on_assigned, self._on_revoked)
        for loop in (self._pump, self._commit_loop, self._tick_loop):
            self._tasks.append(
                asyncio.create_task(self._guard(loop), name=f"{self.runner.group}:{loop.__name__}")
            )

    async def _guard(self, loop: Any) -> None:
        try:
            await loop()
        except Exception as error:  # noqa: BLE001 - a dead loop must take the worker with it
            self._fail(error)

    async def _on_assigned(self, partitions: frozenset[TP]) -> None:
        try:
            await self._commits.assigned(partitions, getattr(self.runner, "width", 0))
            await self.runner.assigned(partitions)
            if hasattr(self.runner, "starts"):
                self._consumer.seek(self.runner.starts())
        except Exception as error:  # noqa: BLE001 - the client library would log it and go on
            self._fail(error)
            return
        self._assigned = partitions
        self.assigned_once.set()
        self._telemetry.event("PartitionsAssigned", stage=self.runner.group, partitions=len(partitions))

    async def _on_revoked(self, partitions: frozenset[TP]) -> None:
        # Batches in the channel are of the old assignment: its next owner reads them again.
        self._generation += 1
        self._handed.clear()
        await self._commit(last=True)
        await self.runner.revoked(partitions)
        self._telemetry.event("PartitionsRevoked", stage=self.runner.group, partitions=len(partitions))

    @property
    def _held(self) -> bool:
        """Whether an operator paused this stage: it reads nothing and no deadline of it fires."""
        return self._pauses.stage(self.runner.group) is not None

    def vitals(self, ends: Mapping[TP, int] | None) -> Vitals:
        """Return what a watchdog must see, given the *ends* of the partitions; None without a broker."""
        progress, seen, held = self.runner.progress(), self.consumer, self._pauses.stage(self.runner.group)
        unread = None if ends is None else seen.unread(ends)
        closed = self.runner.paused()
        return Vitals(
            joined=seen.joined,
            read=seen.read,
            taken=self._taken,
            done=progress.done,
            commits=seen.commits,
            committing=seen.committing,
            queued=self._put - self._taken,
            in_flight=progress.in_flight,
            unread=None if unread is None else sum(unread.values()),
            readable=sum(n for tp, n in (unread or {}).items() if tp not in closed),
            heads=progress.heads,
            paused_by="" if held is None else f"paused by {held.actor}",
            waits_for=self._telemetry.waits_for,
        )

    async def _pump(self) -> None:
        while not self._stopping.is_set():
            # Pauses are given anew every time: a rebalance drops them.
            full = self._channel.queue.qsize() >= _FULL or self._held
            self._consumer.pause(self._assigned if full else self.runner.paused())
            found = await self._consumer.poll(_POLL_S)
            # A poll may span a rebalance; what it gives out is of the assignment at its end.
            generation = self._generation
            for batch in self._batches(found, generation):
                if generation == self._generation:
                    self._put += 1
                    await self._channel.put(batch)
            if full:
                await asyncio.sleep(_TICK_S / 10)

    def _batches(self, found: Mapping[TP, Sequence[Envelope]], generation: int) -> list[Batch]:
        """Return what was read, and where nothing was but a gap, the end of the gap."""
        out = []
        for tp, reached in self._consumer.reached().items():
            records = found.get(tp, ())
            if records or reached > self._handed.setdefault(tp, self._commits.resumes(tp)):
                out.append(Batch(tp, records, generation, reached))
                self._handed[tp] = reached
        return out

    async def _commit_loop(self) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(_COMMIT_S)
            await self._commit()
            self._observe()

    def _observe(self) -> None:
        progress = self.runner.progress()
        stage, now = self.runner.group, self._telemetry.clock() // 1000
        self._telemetry.in_flight.labels(stage).set(progress.in_flight)
        since = progress.oldest_since
        self._telemetry.oldest.labels(stage).set(0 if since is None else max(now - since, 0) / 1000)
        self._telemetry.pauses(self._pauses.scopes())
        self._telemetry.paused.labels(stage).set(len(self.runner.paused()))
        self._telemetry.late.labels(stage).set(progress.details.get("late", 0))
        self._telemetry.buffered(stage, "fetched", self._channel.queue.qsize(), _CHANNEL)
        self._telemetry.buffered(stage, "uncommitted", self._commits.pending, max(len(self._assigned), 1))
        for buffer, (items, limit) in progress.buffers.items():
            self._telemetry.buffered(stage, buffer, items, limit)

    async def _commit(self, *, last: bool = False) -> None:
        if self._failed:
            return
        try:
            await (self._commits.close() if last else self._commits.flush())
        except Unavailable as error:
            # Asked again next time, unless the group moved on: then the next owner resumes from the last
            # commit that went through.
            self._telemetry.event(
                "CommitRejected", "warning", stage=self.runner.group, reason=str(error)[:200]
            )

    async def _tick_loop(self) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(_TICK_S)
            if not self._held:
                await self.runner.tick()

    async def _emptied(self) -> None:
        """Wait until the agent is done with every batch.

        An empty channel is not enough: a batch that has left it may not have reached its runner yet, which
        would begin it after everything in flight was waited for.
        """
        while self._taken < self._put:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)

    async def stop(self, drain_s: float) -> None:
        """Read no more, wait at most *drain_s* seconds for what is in flight, commit, leave.

        What is not finished by then is not committed, and comes again.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + drain_s
        self._stopping.set()
        await asyncio.gather(*self._tasks[:1], return_exceptions=True)
        if not self._held:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._emptied(), drain_s)
        await self.runner.drain(max(until - loop.time(), 0.0))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(TimeoutError):  # a broker that is away must not keep a process from ending
            await asyncio.wait_for(self._commit(last=True), _LAST_COMMIT_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._consumer.stop(), _LAST_COMMIT_S)

    async def abandon(self) -> None:
        """Crash, for tests: stop at once, commit nothing."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Fleet:
    """Several hosts in one Faust app, started and stopped together."""

    def __init__(self, name: str, hosts: Sequence[Host]) -> None:
        self.hosts = hosts
        # The URL is never dialled: the boot strategy starts no transport.
        self._app = _App(name, broker="kafka://127.0.0.1:0", store="memory://", web_enabled=False)
        for host in hosts:
            host.attach(self._app)

    async def start(self) -> None:
        """Start the agents, then let every host join its group."""
        self._app.finalize()
        await self._app.start()
        self._app.flow_control.resume()
        for host in self.hosts:
            await host.start()

    async def stop(self, drain_s: float = 10.0) -> None:
        """Stop the hosts one after the other, sources first, then the app."""
        for host in self.hosts:
            await host.stop(drain_s)
        await self._app.stop()

    async def abandon(self) -> None:
        """Crash, for tests."""
        for host in self.hosts:
            await host.abandon()
        await self._app.stop()
