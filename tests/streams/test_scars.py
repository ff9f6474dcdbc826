"""Scenarios that broke other systems, each with its pass rule: rows 6, 7, 8, 9 and 11 of the list."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.admission import Admission, read_line
from agents.dispatch import FirstDecisions
from agents.ledger import GRACE_MS, Ledger, ended, started
from agents.testing import Answer, request_of
from replay.fold import VirtualClock
from schemas.completion import Completion
from schemas.identity import Origin
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.request import Request
from streams.batch import BatchOptions
from tests.agents.samples import decision, job, request
from tests.streams.batch_world import batch_file, line, routed, topology
from tests.streams.plays import START, Play
from tests.streams.scenes import FoldSide, Scene

YAML = """
providers:
  models:
    - {name: large, backend_refs: [{name: north}]}
    - {name: other, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: south}]}
routing:
  signals:
    keywords: [{name: code, operator: OR, keywords: [python]}]
  decisions:
    - {name: code, rules: {type: keyword, name: code}, modelRefs: [{model: large}, {model: small}]}
deadlines: {request_s: 600, call_s: 2, attempts: 1}
"""


def keyed(key: str, text: str, custom_id: str = "c") -> dict[str, object]:
    """Return a batch line with an idempotency key."""
    return {**line(custom_id, text), "idempotency_key": key}


async def test_scar_06_the_same_key_with_another_body_is_a_conflict(tmp_path: Path) -> None:
    """The first body is answered; the other one gets a line error, in its own run or in another."""
    async with topology() as world:
        first = batch_file(tmp_path, [keyed("k", "hello")], "a.jsonl")
        other = batch_file(tmp_path, [keyed("k", "goodbye"), keyed("l", "new", "d")], "b.jsonl")
        _, [answered] = await routed(world, first, BatchOptions(run="a"))
        _, [conflict, fresh] = await routed(world, other, BatchOptions(run="b"))

    assert answered["error"] is None
    assert conflict["error"]["code"] == "idempotency_conflict"
    assert fresh["error"] is None


async def test_scar_06_the_same_key_and_body_is_the_same_request(tmp_path: Path) -> None:
    """Asked again in another run, with its JSON written differently, the first one's answer comes, unpaid."""
    async with topology() as world:
        raw = keyed("k", "hello")
        turned = {**raw, "body": dict(reversed(list(raw["body"].items())))}  # type: ignore[attr-defined]
        _, [one] = await routed(world, batch_file(tmp_path, [raw], "a.jsonl"), BatchOptions(run="a"))
        spaced = json.dumps(turned, indent=None, separators=(" , ", " : ")).encode()
        _, [two] = await routed(world, batch_file(tmp_path, [spaced], "b.jsonl"), BatchOptions(run="b"))
        jobs = len(world.log.envelopes("jobs.north.batch"))  # type: ignore[attr-defined]

    assert one["response"] == two["response"]
    assert jobs == 1


def test_scar_06_a_key_is_free_again_behind_the_horizon() -> None:
    """The same key is a conflict up to a day by the log's time, and a new request after it."""
    day = 1000
    first = FirstDecisions(10, day)
    holder = replace(decision(request(), ORIGIN), key_id=bytes(16))
    other = replace(holder, request_id=b"\x01" * 16)
    first.note(holder, 1, 0)
    first.note(other, 2, day)
    assert first.is_conflict(other)
    first.note(other, 3, day + 1)
    assert not first.is_conflict(other)
    assert first.is_first(other, 2)


def test_scar_06_a_header_names_the_key_too() -> None:
    """`Idempotency-Key` among a line's headers is the key, and is no credential that would be dropped."""
    raw = {**line("c", "hello"), "headers": {"Idempotency-Key": "k"}}
    found = read_line(1, json.dumps(raw).encode())
    assert found.idempotency_key == "k"


def of_key(tenant: str, key: str, text: str) -> Request:
    """Return the request of a line with a key."""
    found = read_line(1, json.dumps(keyed(key, text)).encode())
    return Admission(Play(YAML).policy, tenant, START, "r").batch(found)


def test_scar_06_a_key_belongs_to_its_tenant() -> None:
    """Two tenants with one key and one body are two requests."""
    ids = {of_key(t, k, x).request_id for t, k, x in itertools.product("ab", "kl", ["hello", "bye"])}
    assert len(ids) == 8


STEPS = st.lists(st.integers(0, 200), max_size=25)


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), STEPS)
def test_scar_07_redelivery_of_any_event_changes_neither_state_nor_bill(
    chance: random.Random, picks: list[int]
) -> None:
    """Any records written again, in any order, after any pause: the same results and the same bill."""
    assert asyncio.run(_bill_after(picks, chance)) == asyncio.run(_bill_after([], chance))


async def _bill_after(picks: Sequence[int], chance: random.Random) -> tuple[dict[bytes, int], float]:
    """Return the effective status of each request and what was paid, with *picks* of records repeated."""
    side = FoldSide(Scene(YAML, []))
    side.publish()
    side.provider.scripts = {"large": [Answer(500), Answer(), Answer(429, 3.0)]}
    for n in range(6):
        side.put("requests", request_of(side.policy, f"r{n}", "python", now=side.clock.now), n % 2)
    await side.fold.finish()
    for pick in picks:
        topic = REPEATED[pick % len(REPEATED)]
        found = side.envelopes(topic)
        if found:
            chosen = found[chance.randrange(len(found))]
            side.append(topic, chosen.partition, chosen.key, chosen.value or b"")
            await side.fold.finish()
    effective: dict[bytes, int] = {}
    for envelope in side.envelopes("results"):
        result = side.codec.decode(envelope.value)
        effective.setdefault(result.request_id, result.status)
    return effective, sum(1.0 for _ in side.provider.calls)


ORIGIN = Origin(0, 0)
REPEATED = (
    "requests",
    "signals.heuristics",
    "decisions",
    "jobs.north.batch",
    "jobs.south.batch",
    "attempts.north",
    "attempts.south",
    "completions",
    "results",
    "retry.1s",
)


def test_scar_07_the_ledger_takes_any_entry_twice() -> None:
    """Starts and ends of a job repeated in any order after they were read leave it ended."""
    ended_job = _job()
    entries = _entries(ended_job)
    for again in itertools.permutations(entries):
        ledger = Ledger()
        for entry in (*entries, *again):
            ledger.note(entry)
        assert ledger.judge(ended_job, START + 10**6).action == "skip"


def _job() -> Job:
    asked = request_of(Play(YAML).policy, "r", "x", now=START)
    return job(request_id=asked.request_id)


def _entries(of: Job) -> list[AttemptStarted | AttemptEnded]:
    return [started(of, "w", 0, START), ended(of, "w", START + 5, "ok", (200, ""))]


async def test_scar_08_a_rate_limit_pauses_its_lane_alone() -> None:
    """After a 429 with Retry-After 30: no call of that model for 30 s, another goes on, no try is used."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1")
        play.provider.scripts = {"large": [Answer(429, 30.0)]}
        play.ask(request_of(play.policy, "r0", "python", now=play.clock.now))
        await play.until(lambda: len(play.provider.calls) == 1, "the 429")
        await play.quiet(5)
        for n in range(1, 6):
            model = "other" if n % 2 else ""
            play.ask(request_of(play.policy, f"r{n}", "python", now=play.clock.now, model=model))
        await play.until(lambda: play.total(["results"]) == 3, "the other lane's results")
        for _ in range(6):
            play.clock.advance(4_990)
            await play.quiet(5)
        before = [model for _, model, _ in play.provider.calls].count("large")
        for _ in range(12):
            play.clock.advance(1_000)
            await play.quiet(5)
        await play.until(lambda: play.total(["results"]) == 6, "every result")

        assert before == 1
        assert {r.status for r in play.records("results")} == {200}
        assert {r.model for r in play.records("results")} == {"large", "other"}


async def test_scar_08_the_pause_outlives_its_worker() -> None:
    """A worker that takes the partition over reads the pause from the ledger."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        first = await play.worker("w1")
        play.provider.scripts = {"large": [Answer(429, 30.0)]}
        play.ask(request_of(play.policy, "r0", "python", now=play.clock.now))
        await play.until(lambda: len(play.provider.calls) == 1, "the 429")
        await play.quiet(5)
        await first.kill()
        await play.worker("w2")
        play.ask(request_of(play.policy, "r1", "python", now=play.clock.now))
        play.clock.advance(20_000)
        await play.quiet(30)
        assert len(play.provider.calls) == 1


async def test_scar_09_a_call_that_hangs_is_taken_elsewhere_and_its_late_answer_recorded_once() -> None:
    """Its timeout ends the claim, the next model answers, and the answer that comes afterwards is billed."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1")
        play.provider.scripts = {"large": [Answer(-1, late=200)]}
        play.ask(request_of(play.policy, "r", "python", now=play.clock.now))
        await play.until(lambda: play.total(["results"]) == 1, "the result from elsewhere")
        play.provider.let_late_answers_come()
        await play.until(lambda: play.total(["results"]) == 2, "the late result")
        await play.quiet()

        effective, late = play.records("results")
        completions: list[Completion] = play.records("completions")
        assert (effective.model, late.model) == ("small", "large")
        assert [(c.model, c.late) for c in completions] == [("small", False), ("large", True)]
        assert len({(c.step, c.branch, c.attempt) for c in completions}) == 2


async def test_scar_09_a_worker_that_hangs_with_its_call_is_succeeded_after_the_timeout() -> None:
    """The claim of a call without an answer runs out, whoever made it."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        play.provider.gate = asyncio.Event()
        first = await play.worker("w1")
        play.ask(request_of(play.policy, "r", "python", now=play.clock.now))
        await play.until(lambda: len(play.provider.calls) == 1, "the call")
        await first.kill()
        play.provider.gate = None
        await play.worker("w2")
        await play.quiet(10)
        play.clock.advance(2_000 + GRACE_MS)
        await play.until(lambda: play.total(["results"]) == 1, "the result")
        assert len({key for _, _, key in play.provider.calls}) == 1


async def test_scar_11_a_replayed_request_keeps_its_id_and_pays_nobody() -> None:
    """The fold over the log's own records decides as the log did, with no provider to call at all."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1")
        asked = request_of(play.policy, "r", "python", now=play.clock.now)
        play.ask(asked)
        await play.until(lambda: play.total(["results"]) == 1, "the result")
        play.ask(asked)
        await play.until(lambda: play.total(["decisions"]) == 2, "the copy's decision")
        await play.quiet()
        replayed = Scene(YAML, [], ("provider.north", "provider.south", "retry"), 1)
        side = FoldSide(replayed)
        side.fold.load(play.log.envelopes("control.policy"))
        side.fold.load(play.log.envelopes("requests"))
        await side.fold.finish()

        assert {d.request_id for d in play.records("decisions")} == {asked.request_id}
        assert len(play.provider.calls) == 1
        assert side.provider.calls == []
        again = [side.codec.decode(e.value).core for e in side.envelopes("decisions")]
        assert again == [d.core for d in play.records("decisions")]
        assert isinstance(side.clock, VirtualClock)


@pytest.mark.parametrize("model", ["", "other"])
async def test_scar_11_a_mirrored_request_completes_beside_the_original(model: str) -> None:
    """Two runs that mirror one line are two requests: both are answered, neither waits for the other."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1")
        one = request_of(play.policy, "r", "python", now=play.clock.now, model=model)
        mirror = replace(one, request_id=b"\x07" * 16, run="mirror")
        for asked in (one, mirror):
            play.ask(asked)
        await play.until(lambda: play.total(["results"]) == 2, "both results")
        assert {r.status for r in play.records("results")} == {200}
