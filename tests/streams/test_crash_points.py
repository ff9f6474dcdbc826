"""A worker that dies at any point between two of its writes: nobody is paid twice, nothing is lost.

The points are enumerated: the worker is cut off after its first record, its second, and so on, until
it lives to the end; each time a successor takes over.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from agents.decision import decide, facts_of
from agents.dispatch import dispatch
from agents.ledger import GRACE_MS
from agents.testing import TIMEOUT, Answer, request_of
from agents.work import Conclusion
from schemas.decision import Decision, DecisionMeta
from schemas.identity import Origin
from schemas.job import AttemptEnded, AttemptStarted, Job
from streams.runners.calling import Caller
from streams.runners.lease import Lease
from tests.streams.plays import Play

YAML = """
providers:
  models:
    - {name: large, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: south}]}
routing:
  decisions:
    - {name: all, modelRefs: [{model: large}, {model: small}]}
deadlines: {request_s: 600, call_s: 2, attempts: 2}
"""
CALL_MS = 2_000
SCRIPTS: dict[str, Sequence[Answer]] = {
    "an answer": [],
    "a retry, then an answer": [Answer(500)],
    "a refused model": [Answer(410)],
    "retries, then another provider": [Answer(500), Answer(500)],
    "no answer, then another provider": [TIMEOUT, TIMEOUT],
    "a rate limit that outlasts memory": [Answer(429, 5.0)],
}
MOST = 18


async def dies_after(play: Play, script: Sequence[Answer], writes: int) -> bool:
    """Kill the worker of every provider and tier after *writes* records; tell whether it lived to the end."""
    mine = ["provider.north", "provider.south", "retry"]
    await play.publish()
    play.provider.scripts = {"large": script}
    first = await play.worker("w1", mine)
    first.dies_after("", writes)
    job = first_job(play)
    play.log.append(("jobs.north.batch", 0), job.request_id, play.codec.encode(job))
    await pass_time(play, 4)
    lived = not first.cable.cut
    await first.kill()
    await play.worker("w2", mine)
    await pass_time(play, 8)
    await play.until(lambda: play.total(["results"]) > 0, "the result")
    await play.quiet(5)
    return lived


def first_job(play: Play) -> Job:
    """Return the job of a request whose plan goes from one provider to the other."""
    request = request_of(play.policy, "r", "hello", now=play.clock.now)
    core = decide(
        play.policy, recipe=request.recipe, request_id=request.request_id, sets=[], facts=facts_of("")
    )
    decision = Decision(request.request_id, Origin(0, 0), core, DecisionMeta((), 0, 0))
    job = dispatch(request, decision, play.clock.now)
    assert isinstance(job, Job)
    return job


async def pass_time(play: Play, turns: int) -> None:
    """Let *turns* of a call's timeout pass, with pauses in which the workers go on."""
    for _ in range(turns):
        await play.quiet(8)
        play.clock.advance(CALL_MS + GRACE_MS)
    await play.quiet(8)


def ledger(play: Play) -> list[AttemptStarted | AttemptEnded]:
    """Return both ledgers."""
    return [*play.records("attempts.north"), *play.records("attempts.south")]


async def every_point(script: Sequence[Answer]) -> list[bool]:
    """Die at every point, each in a world of its own; return at which points the worker lived on."""
    points = [judged_after(script, writes) for writes in range(1, MOST)]
    found = await asyncio.gather(*points, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [lived for lived in found if isinstance(lived, bool)]


async def judged_after(script: Sequence[Answer], writes: int) -> bool:
    """Die after *writes* records and judge what the log says then; raises AssertionError."""
    async with Play(YAML, partitions=1) as play:
        lived = await dies_after(play, script, writes)
        where = f"died after {writes} writes"
        assert {r.status for r in play.records("results")} == {200}, where
        paid = {(c.provider, c.attempt) for c in play.records("completions") if c.status == 200}
        assert len(paid) == 1, f"{where}: answers under several keys: {paid}"
        assert_calls_are_explained(play, where)
        assert_what_follows_exists(play, where)
        return lived


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
async def test_death_between_any_two_writes_pays_nobody_twice(script: Sequence[Answer]) -> None:
    """At every point: one effective result, one paid key, and no call that the ledger does not explain."""
    lived = await every_point(script)
    assert not lived[0]
    assert lived[-1], f"the worker had not come to an end after {MOST} writes"


async def test_handing_on_before_closing_the_attempt_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of writes that this test is about, planted the wrong way round, pays two providers."""

    async def job_first(self: Caller, lease: Lease, job: Job, conclusion: Conclusion) -> None:
        await self._send(conclusion.emits)
        if conclusion.job is not None:
            await self._hand_on(lease, job, conclusion.job, "")
        await lease.end(replace(conclusion.ended, following=None))

    monkeypatch.setattr(Caller, "write", job_first)
    with pytest.raises(AssertionError, match="answers under several keys"):
        await every_point(SCRIPTS["retries, then another provider"])


def assert_calls_are_explained(play: Play, where: str) -> None:
    """A key is called once, and once more for each attempt without an end or an answer."""
    calls = Counter(key for _, _, key in play.provider.calls)
    starts = Counter(r.key for r in ledger(play) if isinstance(r, AttemptStarted))
    silent = Counter(r.key for r in ledger(play) if isinstance(r, AttemptEnded) and r.outcome == "unanswered")
    for key, n in calls.items():
        assert n <= starts[key], f"{where}: {key} was called without a start"
        assert n <= 2 + silent[key], f"{where}: {key} was called {n} times"


def assert_what_follows_exists(play: Play, where: str) -> None:
    """Every job that an end names is in the log, in its topic or on its way back there."""
    jobs: set[str] = {
        job.key
        for name in ("north", "south")
        for job in play.records(f"jobs.{name}.batch")
        if isinstance(job, Job)
    }
    for record in ledger(play):
        if isinstance(record, AttemptEnded) and record.following is not None:
            key = record.key.rsplit("-", 1)[0] + f"-{record.following.attempt}"
            assert key in jobs, f"{where}: {key} was never written"
