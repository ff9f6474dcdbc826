"""A stage hosted over a log under test: lives that start, stop and die, and a log that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from agents.errors import Unavailable
from agents.topology import Emit, MapStage
from schemas.codec import Codec
from schemas.dead_letter import DeadLetter
from schemas.envelope import Envelope
from schemas.topics import DEAD_LETTERS, REQUESTS
from streams.app import make_world
from streams.host import Fleet, Host
from streams.letters import LetterLimits
from streams.log import TP, Commit, Consumer, Log, Placed
from streams.runners.mapping import MapRunner
from streams.telemetry import Telemetry
from tests.suites.log_suite import PARTITIONS, PATIENCE_S, Bench

GROUP = "copy"
YAML = "providers: {models: [{name: small, backend_refs: [{name: north}]}]}\nrouting: {decisions: []}\n"
_KILL_S = 15.0
_AGAIN_S = 0.1
Step = Callable[[Envelope], Awaitable[None]]


class Faulty:
    """A log whose sends to one topic fail, and whose commits do, as often as they are told to."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.prefix = log.prefix
        self.failing: dict[str, int] = {}
        self.failing_commits = 0
        self.dead = False
        self.consumers: list[Consumer] = []
        self.committed: list[Mapping[TP, Commit]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def send(
        self, place: TP, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Awaitable[Placed]:
        """Send, or fail; a dead process never hears of it."""
        if self.dead:
            await asyncio.Event().wait()
        if self.failing.get(place[0], 0) > 0:
            self.failing[place[0]] -= 1
            raise Unavailable("the topic takes nothing")
        return await self._log.send(place, key, value, headers)

    def consumer(self, group: str, topics: Sequence[str], instance: str) -> Consumer:
        """Return a member whose commits are seen."""
        consumer: Any = self._log.consumer(group, topics, instance)
        self.consumers.append(consumer)
        commit = consumer.commit

        async def seen(offsets: Mapping[TP, Commit]) -> None:
            if self.dead:
                await asyncio.Event().wait()
            if self.failing_commits > 0:
                self.failing_commits -= 1
                raise Unavailable("the coordinator does not answer")
            await commit(offsets)
            self.committed.append(offsets)

        consumer.commit = seen
        return consumer  # type: ignore[no-any-return]


class Life:
    """One process of the stage: a host, its world and what it was told went wrong."""

    def __init__(
        self, bench: Bench, instance: str, step: Step, stage: MapStage, limits: LetterLimits
    ) -> None:
        self._bench = bench
        self.log = Faulty(bench.log)
        self.done: list[tuple[int, int]] = []
        self.failures: list[BaseException] = []
        self.killed = asyncio.Event()
        self.telemetry = Telemetry(lambda: 1_790_000_000_000_000, quiet=True)
        self.telemetry.failed = lambda _stage, error: self.failures.append(error)
        self.world = make_world(self.log, self.telemetry, instance, limits=limits)
        self.runner = MapRunner(stage, self.world)
        host = Host(self.runner, self.log, self.telemetry, instance, self.world.pauses)
        self.host = host
        self._fleet = Fleet(f"{GROUP}-{instance}", [host])
        self._step = step
        self._gone = False

    async def step(self, chunk: Sequence[tuple[Envelope, Any]]) -> list[tuple[Emit, ...]]:
        """Do the scene's step on each record, and note it."""
        for envelope, _ in chunk:
            await self._step(envelope)
            self.done.append((envelope.partition, envelope.offset))
        return [() for _ in chunk]

    async def start(self) -> Life:
        """Begin."""
        await self.world.policies.start()
        await self._fleet.start()
        return self

    async def stop(self) -> None:
        """End in good order."""
        if not self._gone:
            self._gone = True
            await self._fleet.stop(2.0)
            await self.world.policies.stop()

    async def kill(self) -> None:
        """End without a word: nothing more is written or committed."""
        if not self._gone:
            self._gone = self.log.dead = True
            for task in self.runner._tasks:
                task.cancel()
            with suppress(Exception):
                await self._fleet.abandon()
            for consumer in self.log.consumers:
                await self._bench.crash(consumer)
            await self.world.policies.stop()


class Scene:
    """A stage over a bench, its lives, and what all of them did."""

    def __init__(self, bench: Bench, step: Step, **stage: Any) -> None:
        self.bench = bench
        self.lives: list[Life] = []
        self._step = step
        self._stage = {"chunk": 1, "concurrency": 4, **stage}
        self.accepts: type | None = None
        bench.afterwards.append(self.end)

    async def life(self, instance: str = "m1", limits: LetterLimits | None = None) -> Life:
        """Start another process."""
        made: list[Life] = []

        async def step(chunk: Sequence[tuple[Envelope, Any]]) -> list[tuple[Emit, ...]]:
            return await made[0].step(chunk)

        stage = MapStage(GROUP, GROUP, REQUESTS, self.accepts, step, lambda _e, _r: (), **self._stage)
        made.append(Life(self.bench, instance, self._step, stage, limits or LetterLimits()))
        self.lives.append(made[0])
        return await made[0].start()

    @property
    def done(self) -> set[tuple[int, int]]:
        """What any life has done."""
        return {place for life in self.lives for place in life.done}

    async def committed(self) -> dict[int, int]:
        """Return the committed offset of each partition; a coordinator that is busy is asked again."""
        tps = [(REQUESTS, p) for p in range(PARTITIONS)]
        asker = self.bench.log.consumer(f"{self.bench.log.prefix}.{GROUP}", [REQUESTS], "asker")
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    with suppress(Unavailable):
                        return {p: c.offset for (_, p), c in (await asker.committed(tps)).items()}
                    await asyncio.sleep(_AGAIN_S)
        finally:
            await asker.stop()

    async def until_committed(self, partition: int, offset: int) -> None:
        """Wait until *partition* is committed up to *offset*, or beyond it; raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.committed()).get(partition, 0) < offset:  # noqa: ASYNC110 - the log has no event
                await asyncio.sleep(_AGAIN_S)

    async def values(self, topic: str) -> list[bytes | None]:
        """Wait until the first partition of *topic* holds anything, and return its values."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [e.value async for e in self.bench.log.read({(topic, 0): 0})]
                if found:
                    return found
                await asyncio.sleep(_AGAIN_S)

    async def letters(self) -> list[DeadLetter]:
        """Return the dead letters."""
        codec = Codec()
        starts = {(DEAD_LETTERS, p): 0 for p in range(await self.bench.log.partitions(DEAD_LETTERS))}
        return [codec.decode(e.value) async for e in self.bench.log.read(starts)]

    async def close(self) -> None:
        """Stop every life."""
        for life in self.lives:
            await life.stop()

    async def end(self) -> None:
        """Kill whatever life a failed test left behind: it would keep its loop and its broker busy."""
        for life in self.lives:
            with suppress(Exception):
                await asyncio.wait_for(life.kill(), _KILL_S)


async def nothing(_: Envelope) -> None:
    """Do nothing."""
