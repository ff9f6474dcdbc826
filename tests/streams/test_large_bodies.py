"""Large bodies end to end, in memory: through a claim store, or refused as a whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.errors import CallTimeout, ConfigError, Unavailable
from agents.ports import HttpCall, HttpReply
from agents.topology import Emit
from infra.simulated_llm.in_process import InProcess
from schemas.claims import FOLDER, mentioned
from schemas.dead_letter import DeadLetter
from schemas.logdir import LogDir
from schemas.request import Request
from schemas.topics import COMPLETIONS, DEAD_LETTERS, REQUESTS, RESULTS
from streams.app import INBOX, Ports
from streams.batch import BatchOptions, submit
from streams.claims import ClaimCheck, ClaimLimits
from streams.claims_gc import collect
from streams.clients.claims import FileClaims, MemoryClaims
from streams.keep import keep_log
from streams.memory import MemoryLog
from streams.runners import World
from streams.settings import wall_clock
from streams.single import single_process
from streams.worker import no_classifier
from tests.schemas.records import SAMPLES
from tests.streams.batch_world import batch_file, line, policy, profile, routed

TWO_MB = "Python " + "x" * 2_000_000
LIMITS = ClaimLimits(budget_s=0.3)
LETTER = next(record for record in SAMPLES if isinstance(record, DeadLetter))


@asynccontextmanager
async def topology(claims: ClaimCheck, complete: Any = None) -> AsyncIterator[World]:
    """Run every role over *claims*."""
    failures: list[BaseException] = []
    provider = complete or InProcess(profile(), 0, reply=HttpReply, timed_out=CallTimeout)
    async with single_process(
        policy(),
        Ports(no_classifier, provider),
        wall_clock,
        failed=lambda _stage, error: failures.append(error),
        claims=claims,
    ) as world:
        yield world
    assert failures == []


def records(world: World, topic: str) -> list[Any]:
    """Return the decoded records of *topic*."""
    assert isinstance(world.log, MemoryLog)
    return [world.codec.decode(envelope.value) for envelope in world.log.envelopes(topic)]


class Recording:
    """A provider that keeps the bodies it was sent, and answers with *size* characters."""

    def __init__(self, size: int = 10) -> None:
        self.bodies: list[bytes] = []
        self._size = size

    async def __call__(self, provider: str, call: HttpCall) -> HttpReply:
        """Answer."""
        del provider
        self.bodies.append(call.body)
        message = {"role": "assistant", "content": "y" * self._size}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        body = json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()
        return HttpReply(200, {}, body, 0.0, float("nan"))


async def test_a_body_of_two_megabytes_is_routed_by_what_it_says(tmp_path: Path) -> None:
    """Signals saw all of it, the provider got all of it, and no topic holds it."""
    provider = Recording()
    store = FileClaims(tmp_path / "claims")
    async with topology(ClaimCheck(store, LIMITS), provider) as world:
        _, rows = await routed(world, batch_file(tmp_path, [line("large", TWO_MB), line("small", "hello")]))
        largest = max(len(e.value or b"") for e in world.log.envelopes(REQUESTS))  # type: ignore[attr-defined]

    assert [(row["custom_id"], row["error"]) for row in rows] == [("large", None), ("small", None)]
    assert rows[0]["signalbox"]["decision"] == "code"
    assert max(len(body) for body in provider.bodies) > 2_000_000
    assert json.loads(max(provider.bodies, key=len))["messages"] == [{"role": "user", "content": TWO_MB}]
    assert largest < 4096


async def test_a_large_answer_comes_back_whole(tmp_path: Path) -> None:
    """Completion and Result refer to it; the output line holds it."""
    store = MemoryClaims()
    async with topology(ClaimCheck(store, LIMITS), Recording(3_000_000)) as world:
        _, rows = await routed(world, batch_file(tmp_path, [line("a")]))
        written = [*records(world, COMPLETIONS), *records(world, RESULTS)]

    assert rows[0]["response"]["body"]["choices"][0]["message"]["content"] == "y" * 3_000_000
    assert [(record.answer, record.answer_claim.size > 3_000_000) for record in written] == [(None, True)] * 2


async def test_a_full_store_refuses_the_line_and_the_others_run(tmp_path: Path) -> None:
    """Nothing of the refused line is in the log; corrected later, it still has its name."""
    store = MemoryClaims()
    store.full = True
    lines: list[Any] = [line("a", TWO_MB), line("a", "hello"), line("b", "hello")]
    async with topology(ClaimCheck(store, LIMITS)) as world:
        _, rows = await routed(world, batch_file(tmp_path, lines))
        accepted = records(world, REQUESTS)

    assert [row["error"] and row["error"]["code"] for row in rows] == ["claim_store_full", None, None]
    assert "is full" in rows[0]["error"]["message"]
    assert sorted(request.custom_id for request in accepted) == ["a", "b"]
    assert store.kept == {}


async def test_a_store_that_is_away_stops_the_submission_and_it_can_be_repeated(tmp_path: Path) -> None:
    """What was acknowledged before stays; the same file again adds what is missing, once."""
    store = MemoryClaims()
    file = batch_file(tmp_path, [line("small"), line("large", TWO_MB)])
    async with topology(ClaimCheck(store, LIMITS)) as world:
        store.down = True
        with pytest.raises(Unavailable):
            await submit(world, file, policy(), BatchOptions())
        store.down = False
        _, rows = await routed(world, file)
        names = [request.custom_id for request in records(world, REQUESTS)]

    assert [row["error"] for row in rows] == [None, None]
    assert sorted(names) == ["large", "small"]


@pytest.mark.parametrize("damage", ["lost", "changed"])
async def test_a_damaged_body_is_a_dead_letter_and_never_another_body(tmp_path: Path, damage: str) -> None:
    """No provider is called with anything but the body that was accepted."""
    provider, store = Recording(), MemoryClaims()
    async with topology(ClaimCheck(store, LIMITS), provider) as world:
        claims = world.claims

        async def spoiled(request: Request) -> Request:
            kept = await ClaimCheck.check_in(claims, request)
            if kept.body.claim is not None and damage == "lost":
                await store.delete(kept.body.claim.uri)
            elif kept.body.claim is not None:
                data, when = store.kept[kept.body.claim.uri]
                store.kept[kept.body.claim.uri] = (data.replace(b"Python", b"Cobol "), when)
            return kept

        claims.check_in = spoiled  # type: ignore[method-assign]
        _, rows = await routed(world, batch_file(tmp_path, [line("bad", TWO_MB), line("good")]))
        letters = records(world, DEAD_LETTERS)

    assert [row["error"] and row["error"]["code"] for row in rows] == ["dead_lettered", None]
    assert {letter.stage for letter in letters} == {"signal.heuristics", "provider.north"}
    assert {letter.error_class for letter in letters} == {"InvalidRecord"}
    assert len(provider.bodies) == 1
    assert all("Cobol" not in letter.reason for letter in letters)


async def test_a_foreign_record_may_be_large_too() -> None:
    """The inbox role keeps the body before it writes the Request."""
    store = MemoryClaims()
    body = json.dumps({"messages": [{"role": "user", "content": TWO_MB}]}).encode()
    async with topology(ClaimCheck(store, LIMITS)) as world:
        await (await world.log.send((f"inbox.{INBOX}", 0), b"k", body))
        async for envelope in world.log.read({(REQUESTS, p): 0 for p in range(4)}, follow=True):
            request = world.codec.decode(envelope.value)
            break

    assert request.body.sealed is None
    assert list(store.kept) == [request.body.claim.uri]


async def test_a_kept_log_holds_the_bodies_that_its_records_claim(tmp_path: Path) -> None:
    """The folder is whole by itself, can be read, and can be replaced by the next one."""
    store = MemoryClaims()
    async with topology(ClaimCheck(store, LIMITS)) as world:
        await routed(world, batch_file(tmp_path, [line("a", TWO_MB)]))
        for _ in range(2):
            await keep_log(world.log, world.policies, tmp_path / "log", world.claims.store)
    kept = {
        str(path.relative_to(tmp_path / "log" / FOLDER)): path.read_bytes()
        for path in (tmp_path / "log" / FOLDER).rglob("*")
        if path.is_file()
    }
    claimed = {
        reference
        for envelope in LogDir(tmp_path / "log").read(REQUESTS)
        for reference in mentioned(envelope.value)
    }

    assert set(kept) == claimed
    assert kept == {reference: data for reference, (data, _) in store.kept.items() if reference in claimed}


HOUR_MS = 3_600_000
ORPHAN = "00/" + "1" * 32 + "-" + "2" * 32


class TestCollection:
    """What nobody refers to is deleted, and nothing else."""

    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[tuple[World, MemoryClaims]]:
        """One large request that was accepted, one whose record was never written; all at time 0."""
        store = MemoryClaims()
        async with topology(ClaimCheck(store, LIMITS)) as world:
            await routed(world, batch_file(tmp_path, [line("a", TWO_MB)]))
            request = records(world, REQUESTS)[0]
            await store.put(ORPHAN, await world.claims.body_of(request))
            yield world, store

    async def test_an_orphan_is_collected_and_a_referenced_body_never(
        self, world: tuple[World, MemoryClaims]
    ) -> None:
        """A dry run counts the same and deletes nothing."""
        running, store = world
        before = dict(store.kept)
        dry = await collect(running.log, store, now=25 * HOUR_MS, grace_s=24 * 3600, dry_run=True)
        assert store.kept == before
        done = await collect(running.log, store, now=25 * HOUR_MS, grace_s=24 * 3600)

        assert (dry.orphans, dry.collected) == (1, 0)
        assert (done.stored, done.orphans, done.collected, done.referenced) == (2, 1, 1, 1)
        request = records(running, REQUESTS)[0]
        assert list(store.kept) == [request.body.claim.uri]

    async def test_what_is_young_is_spared(self, world: tuple[World, MemoryClaims]) -> None:
        """Its record may be on its way."""
        running, store = world
        done = await collect(running.log, store, now=HOUR_MS, grace_s=24 * 3600)

        assert (done.young, done.collected, len(store.kept)) == (2, 0, 2)

    async def test_a_reference_in_a_dead_letter_keeps_the_body(
        self, world: tuple[World, MemoryClaims]
    ) -> None:
        """What can be redriven still has its body, though its topic has forgotten the request."""
        running, store = world
        request = records(running, REQUESTS)[0]
        copy = replace(request, body=replace(request.body, claim=replace(request.body.claim, uri=ORPHAN)))
        letter = replace(LETTER, value=running.codec.encode(copy))
        await (await running.outbox.send(Emit(DEAD_LETTERS, 0, request.request_id, letter)))
        done = await collect(running.log, store, now=25 * HOUR_MS, grace_s=24 * 3600)

        assert (done.orphans, len(store.kept)) == (0, 2)

    async def test_a_grace_that_is_too_short_is_refused(self, world: tuple[World, MemoryClaims]) -> None:
        """It could collect what has just been put."""
        running, store = world
        with pytest.raises(ConfigError, match="600"):
            await collect(running.log, store, now=25 * HOUR_MS, grace_s=599)
