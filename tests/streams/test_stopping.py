"""A worker that is told to stop: what it has begun it ends, and what it has not begun it leaves alone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from agents.ports import HttpCall, HttpReply
from agents.testing import Answer, ScriptedProvider, request_of
from schemas.envelope import Envelope
from streams.host import Fleet, Host
from streams.log import TP, Commit
from streams.memory import MemoryConsumer, MemoryLog
from streams.runners import Progress
from streams.telemetry import Telemetry
from tests.live.kill_waiting import until_true
from tests.streams.plays import Play, Worker

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: small, backend_refs: [{name: south}]}
routing: {decisions: []}
"""


class SlowConsumer(MemoryConsumer):
    """A member whose commits take a while, as they do on a busy broker."""

    async def commit(self, offsets: Mapping[TP, Commit]) -> None:
        """Commit, later."""
        await asyncio.sleep(1.0)
        await super().commit(offsets)


class SlowLog(MemoryLog):
    """A log with slow commits."""

    def consumer(self, group: str, topics: Sequence[str], instance: str) -> MemoryConsumer:
        """Return a member that is slow to commit."""
        member = super().consumer(group, topics, instance)
        member.__class__ = SlowConsumer
        return member


class Diary:
    """A runner that writes down what it is told."""

    group = "diary"
    topics: Sequence[str] = ("requests",)

    def __init__(self) -> None:
        self.told: list[str] = []

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Take over."""

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Let go."""

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Note it."""
        self.told.append(f"process {len(batch)} of {tp[0]}")

    def reached(self, tp: TP, position: int) -> None:
        """Care for no gaps."""

    def paused(self) -> frozenset[TP]:
        """Return nothing."""
        return frozenset()

    def commits(self) -> Mapping[TP, Commit]:
        """Return nothing."""
        return {}

    async def tick(self) -> None:
        """Do nothing."""

    async def drain(self, timeout_s: float) -> None:
        """Note it."""
        self.told.append(f"drain within {timeout_s > 0}")

    def progress(self) -> Progress:
        """Return nothing."""
        return Progress()


async def test_what_was_read_is_begun_before_the_rest_is_waited_for() -> None:
    """A batch that has left its channel and not yet reached its runner is not begun after the drain."""
    log = SlowLog({"requests": 1}, lambda: 0)
    runner = Diary()
    host = Host(runner, log, Telemetry(lambda: 0, quiet=True), "w1")
    fleet = Fleet("diary", [host])
    await fleet.start()
    await host.assigned_once.wait()
    log.append(("requests", 0), b"", b"1")
    await until_true(lambda: host.vitals(None).read > 0, time.monotonic() + 60, 0)
    await fleet.stop(60.0)

    assert runner.told == ["process 1 of requests", "drain within True"]


class SlowProvider(ScriptedProvider):
    """A provider that takes 20 ms."""

    async def __call__(self, name: str, call: HttpCall) -> HttpReply:
        """Answer after 20 ms."""
        reply = await super().__call__(name, call)
        await asyncio.sleep(0.02)
        return reply


async def ended(worker: Worker) -> None:
    """Stop *worker*, and let its process end: what it still does then, nobody hears of."""
    await worker.stop(drain_s=60.0)
    worker.gone = False
    await worker.kill()


async def test_workers_restarted_one_after_the_other_call_once() -> None:
    """Ten graceful lives under load: no call is cut off and made again."""
    async with Play(YAML) as play:
        play.provider = SlowProvider()
        await play.publish()
        asked = 0
        for life in range(10):
            worker = await play.worker(f"w{life}")
            until = asked + 20
            while asked < until:
                request = request_of(play.policy, f"r{asked}", "hello", now=play.clock.now)
                play.ask(request, asked % 2)
                asked += 1
                await asyncio.sleep(0.002)
            await ended(worker)
        await play.worker("last")
        await play.until(lambda: play.total(["results"]) >= asked, "all results")

        assert set(Counter(key for _, _, key in play.provider.calls).values()) == {1}
        assert Counter(r.request_id for r in play.records("results")).most_common(1)[0][1] == 1


async def test_a_job_that_waits_is_not_begun_by_a_worker_that_stops() -> None:
    """A job whose lane opens while its worker drains is left to the next life."""
    async with Play(YAML, partitions=1) as play:
        play.provider.scripts = {"small": [Answer(429, retry_after_s=2)]}
        await play.publish()
        worker = await play.worker("w1")
        play.ask(request_of(play.policy, "r1", "hello", now=play.clock.now))
        await play.until(lambda: bool(play.provider.calls), "the refused call")
        play.ask(request_of(play.policy, "r2", "hello", now=play.clock.now))
        runner = next(h.runner for h in worker.fleet.hosts if h.runner.group.startswith("provider."))
        await play.until(lambda: runner.progress().details["waiting"] > 0, "a job that waits")
        before = len(play.provider.calls)
        await runner.drain(5.0)
        play.clock.advance(5_000)
        await asyncio.sleep(1.2)

        assert len(play.provider.calls) == before
        await ended(worker)
        await play.worker("w2")
        await play.until(lambda: play.total(["results"]) == 2, "both results")
