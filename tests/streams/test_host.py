"""The topology on the Faust host: a request goes in, its result comes out; what fails is kept and told."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from agents.testing import request_of
from schemas.envelope import Envelope
from streams.app import Tuning, roles_for
from streams.host import Fleet, Host
from streams.log import TP, Commit
from streams.memory import MemoryLog
from streams.runners import Progress
from streams.runners.joining import JoinRunner
from streams.telemetry import Telemetry
from tests.streams.plays import Play
from tests.suites.log_suite import until

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: large, provider_model_id: vendor/large, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: south}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python]}
    embeddings:
      - {name: maths, threshold: 0.9, candidates: [solve this equation]}
  decisions:
    - name: code
      rules:
        operator: OR
        conditions:
          - {type: keyword, name: code}
          - {type: embedding, name: maths}
      modelRefs: [{model: large}, {model: small}]
"""


async def test_every_request_gets_one_result() -> None:
    """Requests in two partitions are observed, decided, dispatched, called and answered, each once."""
    async with Play(YAML) as play:
        await play.publish()
        await play.worker("w1")
        for n in range(40):
            text = f"python {n}" if n % 2 else f"hello {n}"
            play.ask(request_of(play.policy, f"r{n}", text, now=play.clock.now), n % 2)
        await play.until(lambda: play.total(["results"]) == 40, "40 results")
        await play.quiet()
        models = [r.model for r in play.records("results")]

        assert sorted(models) == ["large"] * 20 + ["small"] * 20
        assert {m for _, m, _ in play.provider.calls} == {"vendor/large", "small"}
        assert len(play.provider.calls) == 40


async def test_workers_that_come_and_go_share_the_work() -> None:
    """Members join and leave in good order while requests flow: each request has one result."""
    async with Play(YAML, partitions=4) as play:
        await play.publish()
        workers = [await play.worker("w1")]
        for n in range(200):
            play.ask(request_of(play.policy, f"r{n}", f"python {n}", now=play.clock.now), n % 4)
            if n in {40, 80}:
                workers.append(await play.worker(f"w{n}"))
            if n == 120:
                await workers.pop(0).stop()
            await asyncio.sleep(0.002)
        await play.until(lambda: play.total(["results"]) >= 200, "200 results")
        await play.quiet()

        for topic in ("decisions", "jobs.north.batch", "results"):
            ids = [r.request_id for r in play.records(topic)]
            assert len(set(ids)) == 200, topic
        assert len({r.request_id for r in play.records("results") if r.status == 200}) == 200
        assert [w.failures for w in play.workers] == [[]] * 3


async def test_a_record_that_cannot_be_read_is_kept_as_it_was() -> None:
    """Foreign bytes become a dead letter of every stage that reads them; what follows is served."""
    async with Play(YAML) as play:
        await play.publish()
        await play.worker("w1")
        headers = (("traceparent", b"00-1-2-01"),)
        play.log.append(("requests", 0), b"key", b"not ours", headers)
        play.ask(request_of(play.policy, "r", "python", now=play.clock.now))
        await play.until(lambda: play.total(["results"]) == 1, "the result behind it")
        await play.quiet()
        letters = play.records("dead-letters")

        assert sorted(d.stage for d in letters) == [
            "decision",
            "dispatch",
            "signal.embedding",
            "signal.heuristics",
        ]
        assert {(d.topic, d.partition, d.offset, d.key, d.value) for d in letters} == {
            ("requests", 0, 0, b"key", b"not ours")
        }
        assert {tuple((h.key, h.value) for h in d.headers) for d in letters} == {headers}


async def test_a_step_that_raises_makes_a_dead_letter_and_nothing_waits_for_it() -> None:
    """A request that breaks a role is buried by it, which still reports; its neighbours are served."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        play.classifier.poison = frozenset({"python 1"})
        await play.worker("w1")
        requests = [request_of(play.policy, f"r{n}", f"python {n}", now=play.clock.now) for n in range(3)]
        for request in requests:
            play.ask(request)
        await play.until(lambda: play.total(["results"]) == 3, "every result")
        await play.quiet()

        (letter,) = play.records("dead-letters")
        assert (letter.stage, letter.error_class) == ("signal.embedding", "ValueError")
        assert (letter.topic, letter.offset, letter.value) == ("requests", 1, play.codec.encode(requests[1]))
        assert "python 1" not in letter.reason
        signals = {s.origin.offset: s.observations for s in play.records("signals.embedding")}
        assert [signals[n].status for n in range(3)] == [("ok",), ("failed",), ("ok",)]
        assert signals[1].reason == ("dead_lettered",)


async def test_a_slow_signal_role_pauses_the_fast_one() -> None:
    """A classifier far slower than the rest makes lag: inputs are paused, no signal is late."""
    lines, window = 3_000, 64
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        play.classifier.delay_s = 0.02
        rest = [role for role in roles_for(play.policy) if role != "decision"]
        await play.worker("rest", rest)
        decider = await play.worker("d1", ["decision"], Tuning(window=window))
        runner = decider.fleet.hosts[0].runner
        assert isinstance(runner, JoinRunner)
        for n in range(lines):
            play.ask(request_of(play.policy, f"r{n}", f"hello {n}", now=play.clock.now))
        held, ahead, paused = 0, 0, 0
        while play.total(["decisions"]) < lines:
            held = max(held, runner.progress().details["held"])
            ahead = max(ahead, play.total(["signals.heuristics"]) - play.total(["signals.embedding"]))
            paused += ("signals.heuristics", 0) in runner.paused()
            await asyncio.sleep(0.005)

        assert paused > 10
        assert ahead > lines / 2
        # The window of each input, and what was on its way when it was paused: a full channel of
        # fetches and one more for each input.
        assert held <= 3 * window + (8 + 3) * 500
        decisions = play.records("decisions")
        assert {(d.meta.late_roles, d.core.signals_missing) for d in decisions} == {((), ())}
        assert runner.progress().details["late"] == 0


class Broken:
    """A runner whose second batch fails, or already its assignment."""

    group = "broken"
    topics: Sequence[str] = ("requests",)

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once
        self.batches: list[int] = []
        self.done = 0

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Take over, or fail."""
        if self._at_once:
            raise KeyError(partitions)

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Let go."""

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Take a batch in, or fail."""
        assert tp == ("requests", 0)
        self.batches.append(batch[0].offset)
        if len(self.batches) == 2:
            message = "the second batch"
            raise KeyError(message)
        self.done = batch[-1].offset + 1

    def reached(self, tp: TP, position: int) -> None:
        """Care for no gaps."""

    def paused(self) -> frozenset[TP]:
        """Return nothing."""
        return frozenset()

    def commits(self) -> Mapping[TP, Commit]:
        """Return what was taken in."""
        return {("requests", 0): Commit(self.done)} if self.done else {}

    async def tick(self) -> None:
        """Do nothing."""

    async def drain(self, timeout_s: float) -> None:
        """Wait for nothing."""

    def progress(self) -> Progress:
        """Return nothing."""
        return Progress()


@pytest.mark.parametrize("where", ["process", "assigned"])
async def test_an_agent_that_fails_is_told_and_goes_no_further(where: str) -> None:
    """Faust would log the exception, drop the batch and go on; the host ends it and commits no more."""
    log = MemoryLog({"requests": 1}, lambda: 0)
    telemetry = Telemetry(lambda: 0, quiet=True)
    told: list[tuple[str, BaseException]] = []
    telemetry.failed = lambda stage, error: told.append((stage, error))
    runner = Broken(at_once=where == "assigned")
    host = Host(runner, log, telemetry, "w1")
    fleet = Fleet(f"broken-{where}", [host])
    await fleet.start()
    for n in range(2):
        log.append(("requests", 0), b"", b"%d" % n)
        await until(lambda n=n: bool(told) or len(runner.batches) > n)  # type: ignore[misc]
    await until(lambda: bool(told))
    for n in range(2, 4):
        log.append(("requests", 0), b"", b"%d" % n)
        await asyncio.sleep(0.05)
    await fleet.stop(0.1)

    assert [(stage, type(error)) for stage, error in told] == [("broken", KeyError)]
    assert runner.batches == ([0, 1] if where == "process" else [])
    commits = log.consumer("signalbox.broken", [], "x")._group.commits
    assert {tp: c.offset for tp, c in commits.items()} == ({("requests", 0): 0} if where == "process" else {})
