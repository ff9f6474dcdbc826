"""Workers that are killed: nothing accepted is lost, and every request has one effective result."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from agents.ledger import GRACE_MS
from agents.testing import request_of
from schemas.identity import Origin
from schemas.job import AttemptEnded, AttemptStarted
from schemas.signal import Observation, Observations, SignalSet
from schemas.topics import DECISIONS, REQUESTS, RESULTS
from streams.app import roles_for
from tests.streams.plays import PARTITIONS, Play

YAML = """
providers:
  models:
    - {name: large, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: south}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python]}
    embeddings:
      - {name: maths, threshold: 0.9, candidates: [solve this equation]}
  decisions:
    - {name: maths, priority: 2, rules: {type: embedding, name: maths}, modelRefs: [{model: large}]}
    - {name: code, priority: 1, rules: {type: keyword, name: code}, modelRefs: [{model: small}]}
    - {name: rest, priority: 0, modelRefs: [{model: small}]}
deadlines: {request_s: 20, call_s: 2, attempts: 2}
"""
CALL_MS = 2_000
DECIDE_MS = 10_000


def late_signal(play: Play, n: int, origin: Origin) -> SignalSet:
    """Return the embedding signal of request *n*, which would send it to another model."""
    request = request_of(play.policy, f"r{n}", "python", now=play.clock.now)
    maths = Observation(
        "embedding", "maths", "", matched=True, confidence=1.0, value=1.0, status="ok", reason=""
    )
    rows = Observations.of([maths])
    return SignalSet(request.request_id, origin, "embedding", play.policy.hash, "", rows, 0, 0)


@pytest.mark.parametrize("before", [0, 30])
async def test_a_decision_whose_inputs_were_not_committed_is_not_made_again(before: int) -> None:
    """Killed between produce and commit, with a late signal meanwhile: one decision, one job."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        roles = [role for role in roles_for(play.policy) if role not in {"signals.embedding", "decision"}]
        await play.worker("rest", roles)
        decider = await play.worker("d1", ["decision"])
        for n in range(before):
            play.ask(request_of(play.policy, f"r{n}", "python", now=play.clock.now))
            signal = late_signal(play, n, Origin(0, n))
            play.log.append(("signals.embedding", 0), signal.request_id, play.codec.encode(signal))
        await play.until(lambda: play.total(["results"]) == before, "earlier results")
        await play.quiet(60 if before else 1)  # commits go out every half second

        decider.dies_after("decisions")
        play.ask(request_of(play.policy, f"r{before}", "python", now=play.clock.now))
        await play.until(lambda: play.total(["signals.heuristics"]) == before + 1, "heuristics")
        play.clock.advance(DECIDE_MS + 1_000)
        await play.until(lambda: decider.cable.cut, "the kill")
        await decider.kill()
        signal = late_signal(play, before, Origin(0, before))
        play.log.append(("signals.embedding", 0), signal.request_id, play.codec.encode(signal))
        await play.worker("d2", ["decision"])
        await play.until(lambda: play.total(["results"]) == before + 1, "the result")
        await play.quiet()

        decisions = [d for d in play.records("decisions") if d.origin.offset == before]
        assert [d.core.decision for d in decisions] == ["code"]
        assert len(play.records("jobs.south.batch")) == 1
        assert len(play.provider.calls) == before + 1


@pytest.mark.parametrize("records", [1, 40, 150, 400, 900])
async def test_a_worker_that_dies_is_succeeded_without_loss(records: int) -> None:
    """Killed after any number of writes; its successor ends every request, none twice."""
    async with Play(YAML) as play:
        await play.publish()
        first = await play.worker("w1")
        first.dies_after("", records)
        for n in range(150):
            text = ("solve this equation", "python", "hello")[n % 3]
            play.ask(request_of(play.policy, f"r{n}", text, now=play.clock.now), n % PARTITIONS)
        await play.until(lambda: first.cable.cut, "the kill")
        await first.kill()
        await play.worker("w2")
        await play.quiet()
        play.clock.advance(CALL_MS + GRACE_MS)  # calls that may still be under way are waited for
        await play.until(lambda: len({r.request_id for r in play.records("results")}) == 150, "every result")
        await play.quiet()

        effective = Counter(r.request_id for r in play.records("results") if r.status == 200)
        assert len(effective) == 150
        decisions = Counter(d.request_id for d in play.records("decisions"))
        assert decisions.total() == len(decisions)
        keys = Counter(key for _, _, key in play.provider.calls)
        started = Counter(
            r.key for p in ("north", "south") for r in ledger(play, p) if isinstance(r, AttemptStarted)
        )
        assert {key for key, n in keys.items() if n > 1} <= {key for key, n in started.items() if n > 1}


def ledger(play: Play, provider: str) -> list[AttemptStarted | AttemptEnded]:
    """Return the ledger of *provider*."""
    return play.records(f"attempts.{provider}")


async def test_a_call_that_may_be_under_way_is_repeated_after_its_timeout_only() -> None:
    """Killed after AttemptStarted: the successor waits for the call's timeout; the key stays the same."""
    async with Play(YAML) as play:
        await play.others("provider.south")
        play.provider.gate = asyncio.Event()
        first = await play.worker("p1", ["provider.south"])
        play.ask(request_of(play.policy, "r", "python", now=play.clock.now))
        await play.until(lambda: len(play.provider.calls) == 1, "the call")
        await first.kill()
        play.provider.gate = None

        # Under the same name, as a supervisor restarts it.
        await play.worker("p1", ["provider.south"])
        play.clock.advance(CALL_MS + GRACE_MS - 1)
        await play.quiet(150)
        calls_before = len(play.provider.calls)
        play.clock.advance(1)
        await play.until(lambda: play.total(["results"]) == 1, "the result")

        assert calls_before == 1
        assert len(play.provider.calls) == 2
        assert len({key for _, _, key in play.provider.calls}) == 1


@pytest.mark.parametrize("role", ["signals.embedding", "provider.south", "decision", "dispatch"])
async def test_what_is_in_flight_when_commits_go_out_is_done_again(role: str) -> None:
    """On a fresh group a slow first record holds the commit back, whatever finished behind it."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("rest", [r for r in roles_for(play.policy) if r != role])
        # What the role waits for, or does, takes longer than until the first commit.
        play.classifier.delay_s = 60.0 if role == "signals.embedding" else 1.5
        play.provider.gate = asyncio.Event()
        first = await play.worker("a1", [role])
        for n in range(3):
            play.ask(request_of(play.policy, f"r{n}", "python", now=play.clock.now))
        if role == "provider.south":
            await play.until(lambda: len(play.provider.calls) == 3, "the calls")
        await play.quiet(80)  # commits go out every half second
        await first.kill()
        play.classifier.delay_s = 0.0
        play.provider.gate.set()
        await play.worker("a2", [role])
        play.clock.advance(CALL_MS + GRACE_MS)
        await play.until(lambda: play.total(["results"]) == 3, "every result")
        await play.quiet()

        assert len({r.request_id for r in play.records("results")}) == 3
        assert [d.core.signals_missing for d in play.records("decisions")] == [()] * 3


async def test_a_call_that_ended_is_not_repeated() -> None:
    """Killed after AttemptEnded, before the commit: the successor reads the ledger and calls nobody."""
    async with Play(YAML) as play:
        await play.others("provider.south")
        first = await play.worker("p1", ["provider.south"])
        first.dies_after("attempts.south", 2)
        play.ask(request_of(play.policy, "r", "python", now=play.clock.now))
        await play.until(lambda: first.cable.cut, "the kill")
        await first.kill()
        await play.worker("p2", ["provider.south"])
        await play.quiet()
        play.clock.advance(CALL_MS + GRACE_MS)
        await play.quiet(120)

        assert [r.outcome for r in ledger(play, "south") if isinstance(r, AttemptEnded)] == ["ok"]
        assert len(play.provider.calls) == 1
        assert play.total(["results"]) == 1


async def test_duplicate_jobs_collapse() -> None:
    """The same job twice, at once and again later, is called once; another attempt of it is called too."""
    async with Play(YAML) as play:
        await play.publish()
        await play.worker("w1")
        play.ask(request_of(play.policy, "r", "python", now=play.clock.now))
        await play.until(lambda: play.total(["results"]) == 1, "the result")
        (job,) = play.records("jobs.south.batch")
        again = request_of(play.policy, "other", "python", now=play.clock.now)
        fresh = replace(job, request_id=again.request_id)
        for copy in (job, fresh, fresh, job, fresh, replace(fresh, attempt=1)):
            play.log.append(("jobs.south.batch", 0), copy.request_id, play.codec.encode(copy))
        await play.until(lambda: play.total(["results"]) == 3, "all results")
        await play.quiet()

        assert [key for _, _, key in play.provider.calls] == [
            job.key,
            fresh.key,
            replace(fresh, attempt=1).key,
        ]


async def test_a_decision_worker_that_comes_back_reads_its_own_decisions() -> None:
    """What it wrote and had not committed is read back: not decided again, and its next life lives."""
    async with Play(YAML, partitions=1) as play:
        await play.others("decision")
        first = await play.worker("d1", ["decision"])
        first.dies_after(DECISIONS, 3)
        for n in range(6):
            play.ask(request_of(play.policy, f"r{n}", f"hello {n}", now=play.clock.now))
        await play.until(lambda: first.cable.cut, "the death")
        written = play.total([DECISIONS])
        await first.kill()
        second = await play.worker("d2", ["decision"])
        await play.until(lambda: play.total([RESULTS]) == 6 or bool(second.failures), "every result")

        assert written >= 3
        assert second.failures == []
        assert [r.request_id for r in play.records(DECISIONS)] == [
            r.request_id for r in play.records(REQUESTS)
        ]
