"""Which decision of a request counts: as a dictionary that forgets nothing tells, whatever the batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.decision import failed
from agents.dispatch import DEAD_LETTERED, TAKEN_BACK
from replay.choices import Wanted, choices
from replay.comparison import compare
from replay.logged import KeptLog
from replay.repeats import FirstOf
from replay.sweeping.axes import axis_of
from replay.sweeping.points import sweep
from replay.view import MemoryLog
from schemas.decision import Decision, DecisionMeta
from tests.replay.logs import LogBuilder

HORIZON = 80
Row = tuple[int, int, bool]
"""Request, timestamp (ms), and whether anything was decided."""


@dataclass
class Naive:
    """What a dictionary tells that holds every request, row by row."""

    held: dict[int, int] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)

    def tell(self, row: Row) -> tuple[bool, bool]:
        """Return whether *row* is its request's decision, and whether it is a repeat."""
        number, stamp, made = row
        if number in self.held and stamp - self.held[number] <= HORIZON:
            return False, True
        if made:
            self.held[number] = stamp
            self.given_up.discard(number)
            return True, False
        again = number in self.given_up
        self.given_up.add(number)
        return False, again


def told(first: FirstOf, rows: list[Row]) -> list[tuple[bool, bool]]:
    """Return what *first* tells of *rows*."""
    ids = np.array([[n, 7 * n + 1] for n, _, _ in rows], dtype=np.uint64).reshape(-1, 2)
    stamps = np.array([stamp for _, stamp, _ in rows], dtype=np.int64)
    made = np.array([made for _, _, made in rows], dtype=np.bool_)
    decided, repeats = first.among(ids, stamps, made)
    return list(zip(decided.tolist(), repeats.tolist(), strict=True))


def held(first: FirstOf) -> int:
    """Return how many decisions are remembered."""
    return sum(len(run.keys) for run in first._runs)


_STEPS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 40), st.integers(0, HORIZON // 8), st.booleans()),
    max_size=60,
)


@given(_STEPS, st.lists(st.integers(1, 12), min_size=1, max_size=12))
@example([(1, 0, 0, True), (1, HORIZON + 1, 0, True)], [2])
@example([(1, 0, 0, True), (1, HORIZON, 0, True), (1, 1, 0, True)], [1, 2])
@example([(1, 0, 0, True), (1, HORIZON + 1, 0, True), (1, 1, 0, True)], [1])
@settings(max_examples=400, deadline=None)
def test_what_is_told_does_not_depend_on_batches(
    steps: list[tuple[int, int, int, bool]], sizes: list[int]
) -> None:
    """Each row as the dictionary tells it, with timestamps a little out of order, in batches of any size."""
    rows, now = [], 1_000
    for number, later, early, made in steps:
        now += later
        rows.append((number, now - early, made))
    naive, first = Naive(), FirstOf(HORIZON)
    wanted = [naive.tell(row) for row in rows]
    found: list[tuple[bool, bool]] = []
    for at in range(len(rows)):
        size = sizes[at % len(sizes)]
        found += told(first, rows[len(found) : len(found) + size])

    assert found == wanted
    assert len(first.given_up) == len(naive.given_up)


def test_what_is_older_than_the_horizon_is_forgotten() -> None:
    """So that memory is bounded by the traffic of the horizon, and a later copy counts for itself."""
    first = FirstOf(horizon=100)
    for now in range(0, 2000, 10):
        assert told(first, [(n, now, True) for n in range(now, now + 10)]) == [(True, False)] * 10
        assert held(first) <= 250
    assert told(first, [(1990, 1999, True), (5, 2000, True)]) == [(False, True), (True, False)]


def redriven(*failures: str) -> LogBuilder:
    """Return a log of eight requests: line 1 has a record of each of *failures*, "" for a decision."""
    builder = LogBuilder()
    for number in range(8):
        request, origin = builder.request(number)
        sets, inputs = builder.signals(request, origin)
        for failure in failures if number == 1 else ("",):
            if not failure:
                builder.decision(request, origin, sets, inputs)
                continue
            core = failed(request.policy_hash, request.recipe, failure)
            record = Decision(request.request_id, origin, core, DecisionMeta((), 0, 0))
            builder.append("decisions", origin.partition, record, request.request_id)
    return builder


@pytest.mark.parametrize(
    ("failures", "decisions", "repeats", "never"),
    [
        ((DEAD_LETTERED,), 7, 0, 1),
        ((DEAD_LETTERED, DEAD_LETTERED), 7, 1, 1),
        ((DEAD_LETTERED, ""), 8, 0, 0),
        ((DEAD_LETTERED, "", ""), 8, 1, 0),
        (("", DEAD_LETTERED), 8, 1, 0),
        (("", TAKEN_BACK, ""), 8, 2, 0),
        ((TAKEN_BACK, ""), 8, 0, 0),
        ((TAKEN_BACK,), 7, 0, 1),
    ],
)
def test_a_request_that_is_given_up_and_redriven_counts_by_its_decision(
    failures: tuple[str, ...], decisions: int, repeats: int, never: int
) -> None:
    """In a comparison, in the table of choices and in a sweep; what is taken back stands for its request."""
    builder = redriven(*failures)
    logged = KeptLog(MemoryLog(builder.envelopes, builder.policies))
    compared, counts = compare(logged, builder.policy), choices(logged, Wanted(builder.policy)).counts
    axes = [axis_of("embedding:maths=0.1:0.9:9", builder.policy)]
    swept = sweep(logged, builder.policy, axes, lambda ids: np.zeros(len(ids), dtype=np.bool_))

    assert (compared.decisions, compared.repeats, compared.undecided) == (decisions, repeats, never)
    assert (counts.decisions, counts.repeats, counts.never_decided) == (decisions, repeats, never)
    assert swept.decisions == decisions
    assert compared.changed == 0
