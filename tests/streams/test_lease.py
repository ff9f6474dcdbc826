"""A call is over when its lease is: also where the log was long in saying that it has the start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest

import streams.runners.working
from agents.ports import HttpCall, HttpReply
from agents.testing import ScriptedProvider, request_of
from schemas.job import AttemptStarted
from streams.log import TP, Placed
from tests.streams.plays import Play, Worker

LEDGER = "attempts.north"
TIMEOUT_S = 4.0
YAML = f"""
providers:
  models: [{{name: small, backend_refs: [{{name: north}}]}}]
routing:
  decisions: [{{name: rest, modelRefs: [{{model: small}}]}}]
deadlines: {{request_s: 600, call_s: {TIMEOUT_S}, attempts: 1}}
"""


@dataclass
class Timed(ScriptedProvider):
    """A provider that notes how long it was given."""

    given_s: list[float] = field(default_factory=list)

    async def __call__(self, name: str, call: HttpCall) -> HttpReply:
        """Answer as scripted."""
        self.given_s.append(call.timeout_s)
        return await super().__call__(name, call)


def hold_first_start(worker: Worker) -> asyncio.Event:
    """Let the log keep back its word that it has the first start until the event is set."""
    told, real, number = asyncio.Event(), worker.cable.send, count()

    async def send(
        place: TP, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Awaitable[Placed]:
        ack = await real(place, key, value, headers)
        if place[0] == LEDGER and next(number) == 0:
            await told.wait()
        return ack

    worker.cable.send = send  # type: ignore[method-assign]
    return told


def starts(play: Play) -> int:
    """Return how many starts the ledger has."""
    return sum(isinstance(record, AttemptStarted) for record in play.records(LEDGER))


async def held(play: Play) -> tuple[Worker, asyncio.Event, Timed]:
    """Ask one thing; return the provider's worker once its start is in the log and it has not heard."""
    provider = play.provider = Timed()
    await play.others("provider.north")
    worker = await play.worker("north", ["provider.north"])
    told = hold_first_start(worker)
    play.ask(request_of(play.policy, "r", "x", now=play.clock.now))
    await play.until(lambda: starts(play) == 1, "the start")
    return worker, told, provider


async def test_a_start_that_is_old_when_it_is_heard_of_is_written_anew() -> None:
    """Another worker would take the call to be over before it is: its lease begins with the second start."""
    async with Play(YAML, partitions=1) as play:
        _, told, provider = await held(play)
        await asyncio.sleep(TIMEOUT_S / 4 + 0.1)
        told.set()
        await play.until(lambda: play.total(["results"]) == 1, "the result")

        assert starts(play) >= 2
        assert len(provider.calls) == 1
        assert provider.given_s[0] >= TIMEOUT_S * 3 / 4


async def test_what_was_waited_for_is_taken_from_the_time_of_the_call() -> None:
    """A start that is still young is good, and its call ends when its lease does."""
    async with Play(YAML, partitions=1) as play:
        _, told, provider = await held(play)
        await asyncio.sleep(0.3)
        told.set()
        await play.until(lambda: play.total(["results"]) == 1, "the result")

        assert starts(play) > 1 or provider.given_s[0] <= TIMEOUT_S - 0.3
        assert len(provider.calls) == 1


async def test_a_start_that_the_next_owner_may_not_know_of_is_not_acted_upon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The partition went before the log said that it has the start: whoever has it now calls, nobody else."""
    monkeypatch.setattr(streams.runners.working, "_LET_GO_S", 0.05)
    async with Play(YAML, partitions=1) as play:
        worker, told, provider = await held(play)
        (host,) = worker.fleet.hosts
        await host.runner.revoked(frozenset({("jobs.north.batch", 0)}))
        told.set()
        await play.quiet()

        assert provider.calls == []
        assert starts(play) == 1
