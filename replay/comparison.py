"""What changes for logged traffic when another policy decides it: counts by cell, and what that costs.

One side is the log, or a policy; the other a policy. Only the cells are kept (tenant, outcome before,
outcome after), and what tells repeats. What reads the log may hold more of a partition: of a kept log its
signals and completions, and what was observed in shadow alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.policy import Policy
from replay.bills import Bill, Bills, Floats
from replay.logged import Batch, Logged, asked, places, words
from replay.logged_facts import hashes, times
from replay.outcomes import Asked, Codes, Decider, Flags, Outcome, Words, numbered
from replay.repeats import FirstOf, firsts

SAMPLES = 3
"""Request ids that are kept of each cell."""

Cell = tuple[str, Outcome, Outcome]
Bucket = tuple[str, str]


@dataclass(slots=True)
class Sums:
    """What is added up over some rows: USD of those with a known cost, tokens of those with known tokens."""

    rows: int = 0
    priced: int = 0
    usd: float = 0.0
    counted: int = 0
    prompt: float = 0.0
    completion: float = 0.0
    samples: list[str] = field(default_factory=list)

    def add(self, rows: int, numbers: NDArray[np.float64]) -> None:
        """Add *rows* rows, with the sums *numbers* in the order of the fields."""
        self.rows += rows
        self.priced += int(numbers[0])
        self.usd += float(numbers[1])
        self.counted += int(numbers[2])
        self.prompt += float(numbers[3])
        self.completion += float(numbers[4])


@dataclass(slots=True)
class Comparison:
    """The tallies; `usage` is by logged model and decision, of answers by the chosen model only.

    `hashes` counts the decisions of each logged policy; `first` and `last` are log timestamps (ms).
    """

    decisions: int = 0
    repeats: int = 0
    undecided: int = 0
    unknown: int = 0
    lacking: Counter[str] = field(default_factory=Counter)
    dropped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hashes: Counter[str] = field(default_factory=Counter)
    first: int | None = None
    last: int | None = None
    cells: dict[Cell, Sums] = field(default_factory=dict)
    usage: dict[Bucket, Sums] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Return how many decisions are another on the other side."""
        return sum(sums.rows for (_, one, other), sums in self.cells.items() if one != other)

    @property
    def unknown_share(self) -> float:
        """Return the share of decisions that need a signal which the log does not hold."""
        return self.unknown / self.decisions if self.decisions else 0.0


def compare(
    logged: Logged,
    new: Policy,
    old: Policy | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Return what changes from *old*, or from what was logged, to *new* over the decisions of *logged*.

    *progress* is told how many decisions were compared. Raises `InvalidRecord` for other columns.
    """
    found = Comparison(dropped=logged.dropped())
    sides = _Sides(None if old is None else Decider(old), Decider(new))
    for partition in logged.partitions():
        bills = Bills(logged.completions(partition))
        first = FirstOf()
        for batch in logged.batches(partition, seen=sides.reads):
            _add(found, batch, _Context(bills, first, sides))
            progress(found.decisions)
        found.undecided += len(first.given_up)
    for decider in (sides.old, sides.new):
        if decider is not None:
            found.lacking |= decider.lacking
    found.lacking += Counter()  # drops the zeros
    return found


@dataclass(frozen=True, slots=True)
class _Sides:
    old: Decider | None
    new: Decider

    @property
    def reads(self) -> frozenset[str]:
        """The fields of observations that either side takes."""
        return self.new.reads | (frozenset() if self.old is None else self.old.reads)

    def decide(self, rows: Asked, logged: Codes, known: list[Outcome]) -> _Both:
        """Return both sides' outcomes of *rows*."""
        after = self.new.decide(rows)
        if self.old is None:
            return _Both(logged, known, after.codes, self.new.outcomes, after.unknown)
        before = self.old.decide(rows)
        unknown = before.unknown | after.unknown
        return _Both(before.codes, self.old.outcomes, after.codes, self.new.outcomes, unknown)


@dataclass(frozen=True, slots=True)
class _Both:
    before: Codes
    was: list[Outcome]
    after: Codes
    would: list[Outcome]
    unknown: Flags


@dataclass(frozen=True, slots=True)
class _Context:
    bills: Bills
    first: FirstOf
    sides: _Sides


def _add(found: Comparison, batch: Batch, context: _Context) -> None:
    if not len(batch.decisions):
        return
    counted = firsts(batch, context.first)
    found.repeats += counted.repeats
    logged = [Outcome(*text) for text in counted.texts]
    batch, codes = counted.only(batch)
    if not len(codes):
        return
    found.hashes.update(hashes(batch.decisions))
    first, last = times(batch.decisions)
    found.first = first if found.first is None else min(first, found.first)
    found.last = last if found.last is None else max(last, found.last)
    both = context.sides.decide(asked(batch), codes, logged)
    bill = context.bills.of(places(batch.decisions))
    numbers, executed = _money(batch, bill)
    found.decisions += len(codes)
    found.unknown += int(both.unknown.sum())
    _usage(found, logged, codes, _Paid(numbers, executed, bill))
    _count(found, batch, both, _Ids(words(batch.decisions), numbers))


@dataclass(frozen=True, slots=True)
class _Ids:
    ids: Words
    numbers: Floats


def _count(found: Comparison, batch: Batch, both: _Both, own: _Ids) -> None:
    """Add every cell of *batch*, with some request ids of those that changed."""
    wide = len(both.would)
    key = (batch.tenant * len(both.was) + both.before) * wide + both.after
    distinct, group = numbered(key)
    counts = np.bincount(group, minlength=len(distinct))
    sums = _summed(group, own.numbers, len(distinct))
    for place, code in enumerate(distinct.tolist()):
        rest, after = divmod(code, wide)
        tenant, before = divmod(rest, len(both.was))
        cell = (batch.tenants[tenant], both.was[before], both.would[after])
        total = found.cells.setdefault(cell, Sums())
        total.add(int(counts[place]), sums[place])
        if cell[1] != cell[2] and len(total.samples) < SAMPLES:
            rows = np.flatnonzero(group == place)
            picked = own.ids[rows[: SAMPLES - len(total.samples)]].tolist()
            total.samples += [f"{high:016x}{low:016x}" for high, low in picked]


def _money(batch: Batch, bill: Bill) -> tuple[Floats, Codes]:
    """Return what `Sums.add` takes of each row, and the number of the model that answered (-1: none)."""
    at, paid = bill.rows_of(places(batch.decisions))
    numbers = np.zeros((5, len(at)))
    if not len(bill.offset):
        return numbers, np.full(len(at), -1, dtype=np.int64)
    cost, prompt, completion = bill.cost[at], bill.prompt[at], bill.completion[at]
    priced = paid & ~np.isnan(cost)
    counted = paid & ~np.isnan(prompt + completion)
    numbers[0], numbers[2] = priced, counted
    for line, (known, values) in ((1, (priced, cost)), (3, (counted, prompt)), (4, (counted, completion))):
        np.copyto(numbers[line], values, where=known)
    return numbers, np.where(paid, bill.model[at], -1)


def _summed(group: Codes, numbers: Floats, groups: int) -> Floats:
    return np.column_stack([np.bincount(group, weights=line, minlength=groups) for line in numbers])


@dataclass(frozen=True, slots=True)
class _Paid:
    numbers: Floats
    executed: Codes
    bill: Bill


def _usage(found: Comparison, logged: list[Outcome], codes: Codes, paid: _Paid) -> None:
    """Add the tokens of each logged model and decision, where no fallback answered."""
    number = {name: code for code, name in enumerate(paid.bill.models)}
    chosen = np.array([number.get(outcome.chosen, -2) for outcome in logged], dtype=np.int64)
    # What another model answered is summed apart, behind the others, and left there.
    own = np.where(chosen[codes] == paid.executed, codes, len(logged))
    sums = _summed(own, paid.numbers, len(logged) + 1)
    counts = np.bincount(own, minlength=len(logged) + 1)
    for code, outcome in enumerate(logged):
        if counts[code]:
            total = found.usage.setdefault((outcome.chosen, outcome.decision), Sums())
            total.add(int(counts[code]), sums[code])
