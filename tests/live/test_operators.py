"""What operators do to a running stack, and what they may expect: rolling restarts, pauses, outages.

The tests share one stack on real Kafka, over which requests flow. `SIGNALBOX_TEST_OUTAGE_S` sets how
long the broker is away; 120 is what docs/results tells of.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.admission import Admission, Line
from agents.errors import Unavailable
from agents.policy import Policy
from agents.topology import Emit
from infra.local.events import StackEvent, WorkerDied
from infra.local.http_health import told
from infra.local.routing import Routing
from infra.local.stack import LocalStack, StackConfig
from infra.local.workers import Worker, written_port
from schemas.completion import Result
from schemas.control import Paused, Resumed
from schemas.decision import Decision
from schemas.identity import partition_for
from schemas.topics import DECISIONS, REQUESTS, RESULTS
from streams.app import load_registries, make_world
from streams.kafka import KafkaLog, KafkaSettings
from streams.pauses import Target, tell
from streams.runners import World
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from tests.architecture.repository import ROOT

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200), pytest.mark.usefixtures("kafka_jars")]

OUTAGE_S = float(os.environ.get("SIGNALBOX_TEST_OUTAGE_S", "20"))
PATIENCE_S = 200.0
POLICY = ROOT / "infra/policies/quickstart.yaml"


@dataclass
class Scene:
    """A running stack, a connection to its log, and what was asked and heard so far."""

    stack: LocalStack
    world: World
    policy: Policy
    heard: list[StackEvent]
    asked: set[bytes] = field(default_factory=set)
    number: int = 0
    asking: bool = True

    async def ask(self, count: int = 1) -> None:
        """Ask *count* things; each is accepted, that is acknowledged by the log, when this returns."""
        acks = []
        for _ in range(count):
            self.number += 1
            text = f"please explain {self.number} in {'Python' if self.number % 2 else 'English'}"
            body = orjson.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]})
            line = Line(self.number, f"line-{self.number}", "/v1/chat/completions", body, "auto", {})
            request = Admission(self.policy, "acme", self.world.now(), "operators").batch(line)
            place = partition_for(request.request_id, await self.world.log.partitions(REQUESTS))
            emit = Emit(REQUESTS, place, request.request_id, request)
            acks.append((request.request_id, await self.world.outbox.send(emit)))
        for request_id, ack in acks:
            await ack
            self.asked.add(request_id)

    async def records(self, topic: str, kind: type) -> list[tuple[int, Any]]:
        """Return the log's time and the record, of all in *topic*."""
        tps = [(topic, p) for p in range(await self.world.log.partitions(topic))]
        found = []
        async for envelope in self.world.log.read(await self.world.log.begins(tps)):
            record = self.world.codec.decode(envelope.value)
            if isinstance(record, kind):
                found.append((envelope.timestamp, record))
        return found

    async def answered(self) -> list[tuple[int, Result]]:
        """Wait until everything that was asked has its result; return all results in the log."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            results = await self.records(RESULTS, Result)
            missing = self.asked - {result.request_id for _, result in results}
            if not missing:
                return results
            assert time.monotonic() < give_up, f"{len(missing)} of {len(self.asked)} have no result"
            await asyncio.sleep(0.5)

    def calls(self) -> Counter[str]:
        """Return how often the simulated providers were called under each idempotency key."""
        assert self.stack.providers is not None
        rows = [orjson.loads(row) for row in self.stack.providers.calls.read_bytes().splitlines()]
        return Counter(row["idempotency_key"] for row in rows)

    async def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until *happened*."""
        give_up = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < give_up, what
            await asyncio.sleep(0.1)

    async def all_tell(self, workers: Sequence[Worker], words: dict[str, Any]) -> None:
        """Wait until each of *workers* tells *words* on /readyz."""
        give_up = time.monotonic() + PATIENCE_S
        for worker in workers:
            while not words.items() <= (heard := await readiness(worker)).items():
                assert time.monotonic() < give_up, (worker.spec.role, words, heard)
                await asyncio.sleep(0.2)

    async def restarted(self, worker: Worker) -> float:
        """Tell *worker* to stop, wait until its next life is ready; return how long that took."""
        began, old = time.monotonic(), worker.pid
        assert worker.send(signal.SIGTERM)
        await self.until(lambda: worker.pid not in {None, old}, "a new life")
        await worker.ready()
        return time.monotonic() - began


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """Start a stack with two decision workers, and connect to it."""
    load_registries()
    policy = Policy.parse(POLICY.read_text(encoding="utf-8"), str(POLICY))
    heard: list[StackEvent] = []
    stack = LocalStack(StackConfig(folder, triton=False), Routing(policy, 2), report=heard.append)
    async with stack:
        await stack.start_workers()
        log = KafkaLog(KafkaSettings(stack.endpoints.broker))
        await log.start()
        world = make_world(log, Telemetry(wall_clock, "test", quiet=True), "test")
        await world.policies.start()
        try:
            yield Scene(stack, world, policy, heard)
        finally:
            await world.policies.stop()
            with suppress(Unavailable, TimeoutError):
                await asyncio.wait_for(log.stop(), 20)


def longest_gap(times: list[int], begin: int, end: int) -> float:
    """Return the longest time (s) between two of *times* (ms) within *begin* and *end*."""
    inside = sorted({begin, end, *(t for t in times if begin < t < end)})
    return max(b - a for a, b in pairwise(inside)) / 1000


async def scar_14_rolling_restart(play: Scene) -> None:
    """Restart every worker under load: nothing lost, nothing doubled, each stop drained and clean."""
    loading = asyncio.create_task(keep_asking(play))
    await asyncio.sleep(2)
    play.heard.clear()
    begin = wall_clock() // 1000
    took = [await play.restarted(worker) for worker in list(play.stack.workers)]
    end = wall_clock() // 1000
    play.asking = False
    await loading  # cut off, it would have asked what nobody knows of
    results = await play.answered()
    decisions = await play.records(DECISIONS, Decision)
    gaps = {
        "decisions": longest_gap([at for at, _ in decisions], begin, end),
        "results": longest_gap([at for at, _ in results], begin, end),
    }
    sys.stdout.write(f"rolling restart: {len(took)} workers, each {max(took):.1f} s at most, pauses {gaps}\n")
    deaths = [event for event in play.heard if isinstance(event, WorkerDied)]

    assert [death.exit_code for death in deaths] == [0] * len(play.stack.workers)
    assert Counter(result.request_id for _, result in results) == dict.fromkeys(play.asked, 1)
    assert Counter(decision.request_id for _, decision in decisions) == dict.fromkeys(play.asked, 1)
    assert all(result.status == 200 for _, result in results)
    assert set(play.calls().values()) == {1}
    # A role with one worker pauses for as long as that worker is away, and no longer.
    assert max(gaps.values()) < max(took) + 5


async def keep_asking(play: Scene) -> None:
    """Ask a few things several times a second, for as long as the scene says."""
    while play.asking:
        await play.ask(4)
        await asyncio.sleep(0.1)


async def pauses_survive_a_kill(play: Scene) -> None:
    """Pause a role, kill its workers: their next lives decide nothing until it is resumed."""
    deciders = [worker for worker in play.stack.workers if worker.spec.role == "decision"]
    before = len(await play.records(DECISIONS, Decision))
    target = Target("stage", "decision")
    await tell(play.world.outbox, Paused(target.scope, target.name, "test", "why", play.world.now()))
    await play.all_tell(deciders, {"waits_for": "paused by test"})
    await play.ask(20)
    for worker in deciders:
        old = worker.pid
        worker.send(signal.SIGKILL)
        await play.until(lambda worker=worker, old=old: worker.pid not in {None, old}, "a life")  # type: ignore[misc]
    await play.all_tell(deciders, {"ready": True, "waits_for": "paused by test"})
    await asyncio.sleep(3)  # in which they would decide
    held = len(await play.records(DECISIONS, Decision))
    await tell(play.world.outbox, Resumed(target.scope, target.name, "test", "", play.world.now()))
    await play.answered()

    assert held == before


async def scar_15_broker_outage(play: Scene) -> None:
    """Take the broker away: nothing is accepted, workers say so, one with a short bound ends; all resumes."""
    assert play.stack.broker.process is not None
    broker = play.stack.broker.process.identity
    spec = next(w.spec for w in play.stack.workers if w.spec.role == "dispatch")
    env = {**spec.env, "SIGNALBOX_OUTAGE_S": "5", "SIGNALBOX_STUCK_S": "60"}
    argv = (*spec.argv[: spec.argv.index("--instance")], "--instance", "hasty")
    hasty_spec = dataclasses.replace(spec, instance=7, argv=argv, env=env)
    hasty = await play.stack.spawn_worker(hasty_spec, restart=False)
    await hasty.ready()
    await play.ask(20)
    play.heard.clear()
    broker.send(signal.SIGSTOP)
    began = time.monotonic()
    try:
        await play.until(lambda: is_stopped(broker.pid), "the stop of each thread of the broker")
        asking = asyncio.create_task(play.ask())
        await play.all_tell(play.stack.workers[:3], {"ready": False, "broker": False})
        await play.until(lambda: hasty.pid is None, "the end of the worker with a short bound")
        await asyncio.sleep(max(OUTAGE_S - (time.monotonic() - began), 0))
        accepted = asking.done() and asking.exception() is None
    finally:
        broker.send(signal.SIGCONT)
    await asyncio.gather(asking, return_exceptions=True)
    with suppress(Unavailable):
        await play.ask(20)
    results = await play.answered()
    died = {(event.role, event.exit_code) for event in play.heard if isinstance(event, WorkerDied)}
    sys.stdout.write(f"outage of {time.monotonic() - began:.0f} s until all was answered; deaths: {died}\n")

    assert not accepted
    assert hasty.process is not None
    assert await hasty.process.wait() == 3
    assert {code for _, code in died} <= {3, 5}
    assert {result.request_id for _, result in results} >= play.asked


def is_stopped(pid: int) -> bool:
    """Tell whether every thread of *pid* is stopped: until then one of them may go on answering."""
    stats = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)


async def readiness(worker: Worker) -> dict[str, Any]:
    """Return what a worker's /readyz says; nothing while it does not answer."""
    return await told(f"http://127.0.0.1:{written_port(worker.port_file)}/readyz") or {}


async def test_scar_14_rolling_restart_then_a_pause_then_scar_15_broker_outage(tmp_path: Path) -> None:
    """One stack: a rolling restart under load, a pause over a kill, an outage of the broker."""
    async with scene(tmp_path / "stack") as play:
        await scar_14_rolling_restart(play)
        await pauses_survive_a_kill(play)
        await scar_15_broker_outage(play)
