"""Operators' pauses: obeyed by every role, kept over restarts, ended by the same target's resume alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agents.testing import request_of
from schemas.codec import Codec
from schemas.control import Paused, Resumed, RunSubmitted
from schemas.envelope import Envelope
from schemas.topics import CONTROL_EVENTS
from streams.app import Tuning, roles_for
from streams.pauses import SCOPES, Pauses, Target
from streams.runners.working import WorkLimits
from tests.streams.plays import Play
from tests.streams.test_host import YAML

CODEC = Codec()
TARGETS = [Target("all"), Target("stage", "decision"), Target("provider", "north"), Target("tenant", "acme")]


def read(records: Sequence[object]) -> Pauses:
    """Return the pauses after *records*."""
    pauses = Pauses(CODEC)
    for offset, record in enumerate(records):
        pauses.take(Envelope(CONTROL_EVENTS, 0, offset, 0, None, CODEC.encode(record)))
    return pauses


def paused(target: Target, at: int = 1) -> Paused:
    """Return the order to pause *target*."""
    return Paused(target.scope, target.name, "ada", "why", at)


def resumed(target: Target, at: int = 2) -> Resumed:
    """Return the order to resume *target*."""
    return Resumed(target.scope, target.name, "ada", "", at)


def say(play: Play, record: Paused | Resumed) -> None:
    """Give an order, as the command line does."""
    play.log.append((CONTROL_EVENTS, 0), b"", CODEC.encode(record))


async def stop(play: Play, target: Target) -> None:
    """Order *target* to be paused; returns when every worker has read the order."""
    say(play, paused(target))
    await play.until(lambda: all(target in w.world.pauses.held for w in play.workers), "the order")


def ask(play: Play, n: int, tenant: str = "acme") -> None:
    """Ask something that goes to north."""
    request = request_of(play.policy, f"r{n}", f"python {n}", now=play.clock.now)
    play.ask(replace(request, tenant=tenant))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(TARGETS)), max_size=12))
def test_what_is_paused_is_what_was_paused_and_not_resumed(orders: list[tuple[bool, Target]]) -> None:
    """Whatever the sequence of orders, a target is paused by its first pause since its last resume."""
    expected: dict[Target, int] = {}
    records: list[object] = []
    for at, (stop, target) in enumerate(orders):
        records.append(paused(target, at) if stop else resumed(target, at))
        if stop:
            expected.setdefault(target, at)
        else:
            expected.pop(target, None)

    assert {t: p.paused_at for t, p in read(records).held.items()} == expected


def test_what_is_not_an_order_is_passed_over() -> None:
    """Runs, foreign bytes and tombstones on the topic pause nothing and stop nobody from reading on."""
    pauses = read([RunSubmitted("r", "t", 1, 1, 0, 0, 5), paused(TARGETS[1])])
    pauses.take(Envelope(CONTROL_EVENTS, 0, 9, 0, None, b"not ours"))
    pauses.take(Envelope(CONTROL_EVENTS, 0, 10, 0, None, None))

    assert list(pauses.held) == [TARGETS[1]]


def test_each_scope_stops_what_it_names_and_nothing_else() -> None:
    """All stops every role; a stage itself; a provider its worker; a tenant only calls."""
    stopped = {
        scope: (
            pauses.stage("decision") is not None,
            pauses.stage("provider.north") is not None,
            pauses.call("provider.north", "acme") is not None,
            pauses.call("provider.south", "acme") is not None,
            pauses.call("provider.north", "other") is not None,
        )
        for scope, pauses in ((t.scope, read([paused(t)])) for t in TARGETS)
    }

    assert set(stopped) == set(SCOPES)
    assert stopped == {
        "all": (True, True, True, True, True),
        "stage": (True, False, False, False, False),
        "provider": (False, True, True, False, True),
        "tenant": (False, False, True, True, False),
    }


async def test_a_paused_stage_consumes_nothing_until_it_is_resumed() -> None:
    """Each role in turn is paused before work comes: what it would write stays away, then all is answered."""
    async with Play(YAML) as play:
        await play.publish()
        await play.worker("w1")
        for n, role in enumerate(roles_for(play.policy)[1:]):
            target = Target("stage", role)
            await stop(play, target)
            ask(play, n)
            await play.quiet()
            results = play.total(["results"])
            say(play, resumed(target))
            await play.until(lambda n=n: play.total(["results"]) > n, f"the result after {role}")  # type: ignore[misc]

            # South's worker and the tiers have nothing to do for these requests: their pause stops nothing.
            assert results == n + (role in {"provider.south", "retry"}), role


async def test_a_pause_survives_a_restart() -> None:
    """A worker that starts while a stage is paused reads the order before it reads any record."""
    async with Play(YAML) as play:
        await play.publish()
        say(play, paused(Target("all")))
        ask(play, 0)
        first = await play.worker("w1")
        await play.quiet()
        await first.kill()
        await play.worker("w1")
        await play.quiet()
        assert play.total() == 2 + 1 + 1  # the policy and its activation, the order, the request
        say(play, resumed(Target("all")))
        await play.until(lambda: play.total(["results"]) == 1, "the result")


async def test_a_paused_provider_makes_no_new_call_while_calls_under_way_finish() -> None:
    """A call that was made is recorded; what came later is neither called nor committed past."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        gate = play.provider.gate = asyncio.Event()
        await play.worker("w1")
        ask(play, 0)
        await play.until(lambda: len(play.provider.calls) == 1, "the first call")
        await stop(play, Target("provider", "north"))
        ask(play, 1)
        gate.set()
        await play.until(lambda: play.total(["results"]) == 1, "the result of the call under way")
        await play.quiet(100)  # beyond a commit

        assert len(play.provider.calls) == 1
        assert play.total(["jobs.north.batch"]) == 2
        commits = play.log.consumer("signalbox.provider.north", [], "x")._group.commits
        assert commits["jobs.north.batch", 0].offset == 1
        say(play, resumed(Target("provider", "north")))
        await play.until(lambda: play.total(["results"]) == 2, "the second result")


async def test_a_paused_tenant_waits_beside_the_others() -> None:
    """Jobs of a paused tenant hold no slot: others in the same partition are answered meanwhile."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        say(play, paused(Target("tenant", "acme")))
        await play.worker("w1", tuning=Tuning(work=WorkLimits(concurrency=1, jobs=64)))
        for n in range(10):
            tenant = "acme" if n % 2 else "other"
            ask(play, n, tenant)
        await play.until(lambda: play.total(["results"]) == 5, "the results of the other tenant")
        await play.quiet()

        assert {r.tenant for r in play.records("results")} == {"other"}
        say(play, resumed(Target("tenant", "acme")))
        await play.until(lambda: play.total(["results"]) == 10, "every result")
        assert len(play.provider.calls) == 10


async def test_a_pause_that_comes_while_jobs_wait_for_a_slot_stops_them() -> None:
    """Jobs queued behind a call of the paused tenant make no call when the slot becomes free."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        gate = play.provider.gate = asyncio.Event()
        await play.worker("w1", tuning=Tuning(work=WorkLimits(concurrency=1, jobs=64)))
        for n in range(4):
            ask(play, n)
        await play.until(lambda: len(play.provider.calls) == 1, "the first call")
        await stop(play, Target("tenant", "acme"))
        gate.set()
        await play.quiet()

        assert len(play.provider.calls) == 1
        assert play.total(["results"]) == 1
