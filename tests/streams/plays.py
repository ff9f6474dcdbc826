"""The topology on the Faust host over the in-memory log, with fakes outside and a clock held still.

A `Play` is one log with any number of workers; a worker can be killed, which cuts it off at once:
nothing that it still tries to write or commit arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from agents.policy import Policy
from agents.ports import Complete, HttpCall, HttpReply
from agents.providers import provider
from agents.testing import HashClassifier, ScriptedProvider, policy_of
from replay.fold import VirtualClock
from schemas.codec import Codec
from schemas.envelope import Envelope
from schemas.request import Request
from schemas.topics import REQUESTS
from streams.app import (
    Context,
    Ports,
    Tuning,
    load_registries,
    make_world,
    roles_for,
    runners_for,
    topic_counts,
)
from streams.host import Fleet, Host
from streams.log import TP, Placed
from streams.memory import MemoryConsumer, MemoryLog
from streams.policies import publish
from streams.runners import World
from streams.telemetry import Telemetry

START = 1_790_000_000_000
PARTITIONS = 2
PATIENCE_S = 60.0


class Cable(MemoryLog):
    """One worker's connection to a shared log; once cut, its writes vanish and its commits fail.

    `on_sent` is told of every record that arrived, before its writer hears of it.
    """

    def __init__(self, log: MemoryLog) -> None:
        super().__init__({}, lambda: 0, prefix=log.prefix)
        self._records, self._counts, self._groups = log._records, log._counts, log._groups
        self._shared = log
        self.members: list[MemoryConsumer] = []
        self.cut = False
        self.on_sent: Callable[[str], None] = lambda _topic: None

    async def send(
        self, place: TP, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Awaitable[Placed]:
        """Send, unless cut: a killed process never hears of what it sent."""
        if self.cut:
            await asyncio.Event().wait()
        placed = await self._shared.send(place, key, value, headers)
        self.on_sent(place[0])
        if self.cut:
            await asyncio.Event().wait()
        return placed

    def consumer(self, group: str, topics: Sequence[str], instance: str) -> MemoryConsumer:
        """Return a member that dies with this connection."""
        member = self._shared.consumer(group, topics, instance)
        self.members.append(member)
        return member

    def read(self, start: Mapping[TP, int], *, follow: bool = False) -> AsyncIterator[Envelope]:
        """Read the shared log."""
        return self._shared.read(start, follow=follow)

    def guard(self, complete: Complete) -> Complete:
        """Return *complete* as a process has it: once killed, it calls nobody and hears no answer."""

        async def call(name: str, asked: HttpCall) -> HttpReply:
            if not self.cut:
                reply = await complete(name, asked)
            if self.cut:
                await asyncio.Event().wait()
            return reply

        return call

    def kill(self) -> None:
        """Cut the connection and leave the groups without a word."""
        self.cut = True
        for member in self.members:
            member.abandon()


@dataclass
class Worker:
    """A process of the play: its roles, its connection and what its host said went wrong."""

    name: str
    cable: Cable
    fleet: Fleet
    world: World
    failures: list[tuple[str, BaseException]] = field(default_factory=list)
    gone: bool = False

    async def kill(self) -> None:
        """Kill it as SIGKILL would, and free what it held in this test's process."""
        self.cable.kill()
        if not self.gone:
            self.gone = True
            await self.world.policies.stop()
            for host in self.fleet.hosts:
                late = getattr(getattr(host.runner, "_caller", None), "late", ())
                for task in {*getattr(host.runner, "_tasks", ()), *late}:
                    task.cancel()
            await self.fleet.abandon()

    def dies_after(self, topic: str, count: int = 1) -> None:
        """Cut it off as soon as its *count*-th record from now on has reached *topic* (any if empty)."""
        left = count

        def sent(where: str) -> None:
            nonlocal left
            left -= topic in {"", where}
            if left == 0:
                self.cable.kill()

        self.cable.on_sent = sent

    async def stop(self, drain_s: float = 1.0) -> None:
        """Stop it in good order, with *drain_s* seconds for what is in flight."""
        if not self.gone:
            self.gone = True
            await self.fleet.stop(drain_s)
            await self.world.policies.stop()


class Play:
    """A log, its clock, its fakes, and the workers that were started."""

    def __init__(self, yaml: str, *, partitions: int = PARTITIONS) -> None:
        load_registries()
        self.policy: Policy = policy_of(yaml)
        self.clock = VirtualClock(START)
        self.codec = Codec(compiled=True)
        self.partitions = partitions
        counts = topic_counts(self.policy.provider_names, partitions)
        self.log = MemoryLog(counts, self.clock.millis)
        self.classifier = HashClassifier()
        self.provider = ScriptedProvider()
        self.workers: list[Worker] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            await worker.stop()

    async def publish(self, policy: Policy | None = None) -> None:
        """Publish *policy*, the play's own by default, and make it active."""
        world = make_world(self.log, Telemetry(self.clock, quiet=True), "operator")
        await publish(world.outbox, policy or self.policy, "test", self.clock.now, activate=True)

    async def worker(
        self, name: str, roles: Sequence[str] | None = None, tuning: Tuning | None = None
    ) -> Worker:
        """Start a worker of *roles*, by default of all that the policy needs."""
        cable = Cable(self.log)
        telemetry = Telemetry(self.clock, quiet=True)
        world = make_world(cable, telemetry, name)
        dialects = {n: provider["openai"]() for n in self.policy.provider_names}
        runners = runners_for(
            roles or roles_for(self.policy),
            world,
            Ports(self.classifier, cable.guard(self.provider)),
            tuning or Tuning(),
            dialects,
            Context("memory", self.partitions),
        )
        hosts = [Host(runner, cable, telemetry, name, world.pauses) for runner in runners]
        fleet = Fleet(f"play-{name}", hosts)
        worker = Worker(name, cable, fleet, world)
        telemetry.failed = lambda stage, error: worker.failures.append((stage, error))
        self.workers.append(worker)
        await world.policies.start()
        await fleet.start()
        return worker

    async def others(self, role: str) -> Worker:
        """Publish the policy and start a worker of every role but *role*."""
        await self.publish()
        return await self.worker("rest", [each for each in roles_for(self.policy) if each != role])

    def ask(self, request: Request, partition: int = 0) -> Placed:
        """Append *request* to `requests`."""
        return self.log.append((REQUESTS, partition), request.request_id, self.codec.encode(request))

    def records(self, topic: str) -> list[Any]:
        """Return every record of *topic*, decoded."""
        return [self.codec.decode(e.value) for e in self.log.envelopes(topic)]

    def total(self, topics: Iterable[str] | None = None) -> int:
        """Return how many records the log (or those *topics* of it) holds."""
        return sum(len(self.log.envelopes(t)) for t in topics or self.log._counts)

    async def until(self, happened: Callable[[], bool], what: str = "it") -> None:
        """Wait until *happened*; raises TimeoutError, naming *what* was waited for."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_S
        while not happened():
            if loop.time() > give_up:
                message = f"waited {PATIENCE_S:g} s for {what}"
                raise TimeoutError(message)
            await asyncio.sleep(0.005)

    async def quiet(self, rounds: int = 30) -> None:
        """Wait until nothing has been written for *rounds* turns of 10 ms, which holds two ticks."""
        seen, still = -1, 0
        while still < rounds:
            now = self.total()
            seen, still = now, still + 1 if now == seen else 0
            await asyncio.sleep(0.01)
