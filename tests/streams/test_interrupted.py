"""A call that ends the process that makes it: its job runs alone, then is a dead letter; all others run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from agents.lanes import Lanes
from agents.ledger import GRACE_MS, Ledger
from agents.ports import HttpCall, HttpReply
from agents.testing import ScriptedProvider, request_of
from agents.turn import Desk, Parking
from schemas.identity import Origin
from schemas.job import AttemptEnded, AttemptStarted
from streams.app import roles_for
from streams.dlq import Orders, last, letters, redrive
from streams.prefix import Prefix
from streams.runners.lease import Lease, back_from
from streams.runners.slots import Slots
from streams.runners.working import WorkLimits
from streams.suspects import CONDEMNED, INTERRUPTED
from tests.streams.plays import Cable, Play
from tests.streams.test_dlq import world_of

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: small, backend_refs: [{name: south}]}
routing: {decisions: []}
deadlines: {request_s: 3600, call_s: 2, attempts: 1}
"""
CALL_MS = 2_000
JOB = 5
DEADLY = b"the end"
SOUTH = "provider.south"


@dataclass
class Deadly(ScriptedProvider):
    """A provider whose answer to one request ends the worker, which notes who else was being called."""

    dies: Callable[[], None] = lambda: None
    calling: int = 0
    company: list[int] = field(default_factory=list)

    async def __call__(self, name: str, call: HttpCall) -> HttpReply:
        """Answer after a while, or be the last thing that the process does."""
        self.calling += 1
        try:
            await asyncio.sleep(0.01)
            if DEADLY in call.body:
                self.company.append(self.calling - 1)
                self.dies()
            return await super().__call__(name, call)
        finally:
            self.calling -= 1


def start(at: int) -> AttemptStarted:
    """Return the start of the one attempt of a job."""
    return AttemptStarted(bytes(16), Origin(0, 0), 0, 0, 0, "south", "small", "w1", at, CALL_MS, JOB)


def end(at: int) -> AttemptEnded:
    """Return an end of it that nobody answered."""
    return AttemptEnded(
        bytes(16), Origin(0, 0), 0, 0, 0, "south", "small", "w1", at, "unanswered", 0, "timeout"
    )


def test_a_start_counts_until_an_end_takes_it_back() -> None:
    """Each start without an end is a life that ended in the call; one that came to an end clears its key."""
    ledger = Ledger()
    counted = []
    for record in (start(0), start(9), end(9), start(12)):
        ledger.note(record)
        counted.append(ledger.interruptions(record.key))

    assert counted == [1, 2, 0, 1]


def _over(cable: Cable, enough: Callable[[], bool]) -> bool:
    return cable.cut or enough()


async def lives(play: Play, deadly: Deadly, enough: Callable[[], bool]) -> int:
    """Start the provider's workers, each after the last one's death; return how many died."""
    deaths = 0
    await play.worker("rest", [role for role in roles_for(play.policy) if role != SOUTH])
    while True:
        worker = await play.worker(f"w{deaths}", [SOUTH])
        cable = worker.cable
        deadly.dies = cable.kill
        await play.until(partial(_over, cable, enough), "death, or the end")
        if not cable.cut:
            return deaths
        await worker.kill()
        deaths += 1
        play.clock.advance(CALL_MS + GRACE_MS + 1)


async def test_the_starts_of_earlier_lives_are_read_back_until_their_job_is_committed() -> None:
    """However long that takes: a start that fell out of what is read back would count for nobody."""
    async with Play(YAML, partitions=1) as play:
        world = world_of(play)
        own = ("attempts.south", 0)
        play.log.append(own, b"", play.codec.encode(start(play.clock.millis())))
        lease = Lease(world, Desk("w2", "", Lanes(), Parking()), own, Prefix(0), 1_000)
        await lease.take_over(0)
        backs = []
        for offset in (0, JOB, JOB + 1):
            segment = lease.prefix.begin(offset, max(offset + 1, JOB), 0)
            for _ in range(3):
                play.clock.advance(10_000)
                await lease.end(end(play.clock.millis()))
            segment.done = True
            commit = lease.commit()
            assert commit is not None
            backs.append((commit.offset, back_from(commit.metadata)))
        await lease.let_go(1.0)

    assert backs[0] == (JOB, 0)
    assert backs[-1][0] == JOB + 2
    assert backs[-1][1] > 0


async def test_a_job_that_ends_its_process_is_set_aside_and_its_neighbours_served() -> None:
    """It is suspected after two deaths, alone in three more, then a dead letter; redriven it is answered."""
    async with Play(YAML, partitions=1) as play:
        deadly = Deadly()
        play.provider = deadly
        await play.publish()
        for n in range(20):
            text = DEADLY.decode() if n == 7 else "hello"
            play.ask(request_of(play.policy, f"r{n}", text, now=play.clock.now))
        deaths = await lives(
            play, deadly, lambda: play.total(["results"]) >= 19 and play.total(["dead-letters"]) > 0
        )
        await play.quiet(60)
        calls = Counter(key for _, _, key in deadly.calls)

        assert deaths == INTERRUPTED + CONDEMNED
        assert deadly.company[0] > 0
        assert deadly.company[-CONDEMNED:] == [0] * CONDEMNED
        assert len(calls) == 20
        every = await letters(world_of(play))
        assert [(e.letter.stage, e.letter.error_class, e.letter.attempts) for e in every] == [
            (SOUTH, "PoisonRecord", CONDEMNED)
        ]

        deadly.dies = lambda: None
        await last(redrive(world_of(play), every, every, Orders("ada")))
        await play.until(
            lambda: len({r.request_id for r in play.records("results")}) == 20, "the last result"
        )


async def test_jobs_that_were_in_flight_with_it_are_innocent() -> None:
    """Whoever was called in each of those deaths is called alone as well, and answered."""
    async with Play(YAML, partitions=1) as play:
        deadly = Deadly()
        play.provider = deadly
        await play.publish()
        for n in range(6):
            text = DEADLY.decode() if n == 0 else "hello"
            play.ask(request_of(play.policy, f"r{n}", text, now=play.clock.now))
        await lives(play, deadly, lambda: play.total(["results"]) >= 5 and play.total(["dead-letters"]) > 0)

        assert play.total(["dead-letters"]) == 1
        assert len({r.request_id for r in play.records("results")}) == 5


@pytest.mark.parametrize("limit", [1, 8, WorkLimits().concurrency])
async def test_a_suspect_has_the_slots_for_itself(limit: int) -> None:
    """Nobody else is in a slot with it, no more than so many are otherwise, and all come to their turn."""
    slots = Slots(limit)
    inside, seen = 0, []

    async def holder(*, alone: bool) -> None:
        nonlocal inside
        async with slots.held(alone=alone):
            inside += 1
            seen.append((inside, alone))
            await asyncio.sleep(0.001)
            assert inside == 1 or not alone
            inside -= 1

    await asyncio.gather(*(holder(alone=n % 10 == 3) for n in range(200)))

    assert len(seen) == 200
    assert {count for count, alone in seen if alone} == {1}
    assert max(count for count, _ in seen) == min(limit, 180)


async def test_a_suspect_that_is_given_up_lets_the_others_go_on() -> None:
    """Cancelled while it waits for its turn, it holds nobody back."""
    slots = Slots(2)
    order = []

    async def holder(name: str, *, alone: bool = False) -> None:
        async with slots.held(alone=alone):
            order.append(name)
            await asyncio.sleep(0.02)

    first = asyncio.create_task(holder("first"))
    await asyncio.sleep(0)
    suspect = asyncio.create_task(holder("suspect", alone=True))
    await asyncio.sleep(0)
    second = asyncio.create_task(holder("second"))
    await asyncio.sleep(0)
    suspect.cancel()
    await asyncio.gather(first, second)

    assert order == ["first", "second"]
