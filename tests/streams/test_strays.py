"""Derived records that belong nowhere, and such as nobody can read: dead letters that nothing waits for.

The script plays a role and writes what that role never would; both drivers must say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from agents.decision import failed
from agents.testing import request_of
from schemas.codec import Codec
from schemas.dead_letter import DeadLetter
from schemas.decision import Decision, DecisionMeta
from schemas.identity import Origin
from schemas.topics import DEAD_LETTERS, DECISIONS, REQUESTS, RESULTS, signals_topic
from tests.streams.scenes import Bag, Scene, Side, differences
from tests.streams.test_parity import POLICY, YAML, ask, asked, observed, publish

EMBEDDING = signals_topic("embedding")
ABSURD = {
    "far behind the end": Origin(0, 10**12),
    "just behind the end": Origin(0, 40),
    "in another partition": Origin(1, 1),
    "in a partition that does not exist": Origin(77, 1),
    "below zero": Origin(0, -5),
}
NUMBERS = {request_of(POLICY, f"r{n}", "", now=1).request_id: n for n in range(10)}
AFTER_GRACE = 1_100
"""Far less (ms) than the time to `decide_by`: what waits longer is blocked."""

Write = Callable[[Side, int, Origin], None]


def signal(side: Side, n: int, origin: Origin) -> None:
    """Write the signals of request *n*, which claim *origin*."""
    side.put(EMBEDDING, observed(asked(n, side), origin), 0)


def decision(side: Side, n: int, origin: Origin) -> None:
    """Write a decision of request *n* that ends it, which claims *origin*."""
    request = asked(n, side)
    core = failed(request.policy_hash, request.recipe, "no_decision")
    side.put(DECISIONS, Decision(request.request_id, origin, core, DecisionMeta((), 0, 0)), 0)


def junk(topic: str) -> Write:
    """Return what writes bytes that are no record under the key of request *n*."""

    def write(side: Side, n: int, _: Origin) -> None:
        side.append(topic, 0, asked(n, side).request_id, b"\x00\x00\x00\x00\x07cut")

    return write


def decoded(bag: Bag, topic: str) -> list[object]:
    """Return the records of *topic* in every partition."""
    codec = Codec()
    return [codec.decode(v) for (t, _), rows in bag.items() if t == topic for _, v in rows.elements()]


def letters(bag: Bag, stage: str) -> list[DeadLetter]:
    """Return the dead letters of *stage*."""
    found = [letter for letter in decoded(bag, DEAD_LETTERS) if isinstance(letter, DeadLetter)]
    return [letter for letter in found if letter.stage == stage]


async def played(steps: Sequence[Callable[[Side], None] | int], without: str) -> Bag:
    """Play *steps* on both drivers, which must agree; return what the fold has."""
    scene = Scene(YAML, [publish, *steps], (without,))
    fold, totals = await scene.on_fold()
    host = await scene.on_host(totals)
    assert "\n".join(differences(fold, host)) == ""
    return fold


def whose(rows: Sequence[DeadLetter], topic: str) -> list[int]:
    """Return the numbers of the requests that the dead letters of *topic* belong to, by their keys."""
    return sorted(NUMBERS[row.key or b""] for row in rows if row.topic == topic)


def late(bag: Bag) -> dict[int, tuple[str, ...]]:
    """Return what each request, by its number, was decided without."""
    made = [d for d in decoded(bag, DECISIONS) if isinstance(d, Decision)]
    return {NUMBERS[d.request_id]: d.meta.late_roles for d in made}


@pytest.mark.parametrize("origin", ABSURD.values(), ids=ABSURD)
async def test_a_signal_set_of_an_absurd_origin_is_buried_and_its_request_decided(origin: Origin) -> None:
    """Neither its own request nor a neighbour waits for a deadline."""

    def say(side: Side) -> None:
        signal(side, 0, Origin(0, 0))
        signal(side, 1, origin)
        signal(side, 2, Origin(0, 2))

    fold = await played([ask(0, 1, 2, partitions=1), say, AFTER_GRACE], "signals.embedding")

    assert whose(letters(fold, "decision"), EMBEDDING) == [1]
    assert len(letters(fold, "decision")) == 1
    assert late(fold) == {0: (), 1: ("embedding",), 2: ()}


@pytest.mark.parametrize("origin", ABSURD.values(), ids=ABSURD)
async def test_a_decision_of_an_absurd_origin_is_buried_and_its_request_can_be_redriven(
    origin: Origin,
) -> None:
    """Its request is a dead letter of dispatch, before its deadline; the neighbours get their results."""

    def say(side: Side) -> None:
        decision(side, 0, Origin(0, 0))
        decision(side, 1, origin)
        decision(side, 2, Origin(0, 2))

    fold = await played([ask(0, 1, 2, partitions=1), say, AFTER_GRACE], "decision")

    buried = letters(fold, "dispatch")
    assert (whose(buried, DECISIONS), whose(buried, REQUESTS)) == ([1], [1])
    assert len(decoded(fold, RESULTS)) == 2


@pytest.mark.parametrize("origin", list(ABSURD.values())[:3], ids=list(ABSURD)[:3])
async def test_a_stray_decision_is_not_the_first_of_its_request(origin: Origin) -> None:
    """What comes in the right place after its request was decided changes nothing, either."""

    def say(side: Side) -> None:
        decision(side, 0, Origin(0, 0))
        decision(side, 0, origin)

    fold = await played([ask(0, partitions=1), say, AFTER_GRACE, ask(1, partitions=1)], "decision")

    assert whose(letters(fold, "dispatch"), DECISIONS) == [0]
    assert len(decoded(fold, RESULTS)) == 1


async def test_a_request_takes_no_signals_of_an_older_stray() -> None:
    """What claimed its origin before it was there is gone when it comes."""
    steps: list[Callable[[Side], None] | int] = [
        ask(0, partitions=1),
        lambda side: signal(side, 9, Origin(0, 1)),
        AFTER_GRACE,
        ask(1, partitions=1),
        lambda side: signal(side, 0, Origin(0, 0)),
        lambda side: signal(side, 1, Origin(0, 1)),
    ]
    fold = await played(steps, "signals.embedding")

    assert [letter.topic for letter in letters(fold, "decision")] == [EMBEDDING]
    assert late(fold) == {0: (), 1: ()}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_unreadable_signal_set_is_missed_at_once_by_its_key(when: str) -> None:
    """Read before or after its request, it makes a dead letter and the decision does not wait."""
    bad = lambda side: junk(EMBEDDING)(side, 1, Origin(0, 1))  # noqa: E731 - a step
    good = lambda side: signal(side, 0, Origin(0, 0))  # noqa: E731 - a step
    requests = ask(0, 1, partitions=1)
    steps = [bad, requests, good] if when == "before" else [requests, bad, good]
    fold = await played(steps, "signals.embedding")

    assert whose(letters(fold, "decision"), EMBEDDING) == [1]
    assert late(fold) == {0: (), 1: ("embedding",)}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_unreadable_decision_buries_its_request_by_its_key(when: str) -> None:
    """Read before or after its request, it leaves nothing to wait for, and the neighbour is served."""
    bad = lambda side: junk(DECISIONS)(side, 1, Origin(0, 1))  # noqa: E731 - a step
    good = lambda side: decision(side, 0, Origin(0, 0))  # noqa: E731 - a step
    requests = ask(0, 1, partitions=1)
    steps = [bad, requests, good] if when == "before" else [requests, bad, good]
    fold = await played(steps, "decision")

    buried = letters(fold, "dispatch")
    assert (whose(buried, DECISIONS), whose(buried, REQUESTS)) == ([1], [1])
    assert len(decoded(fold, RESULTS)) == 1
