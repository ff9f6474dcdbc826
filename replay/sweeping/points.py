"""Every point of a sweep over a log: what would be decided, and what that would cost.

From one point to the next only the rows whose match flips are decided again, so that a hundred points cost
little more than one. Batches stream through: what is kept is a table of counts, and the rows with a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.policy import Policy
from replay.bills import Bill, Bills
from replay.logged import Batch, Logged, asked, places
from replay.outcomes import Asked, Codes, Decider, Outcome
from replay.repeats import FirstOf, firsts
from replay.sweeping.axes import Axis, points_of
from replay.sweeping.scores import Scored

Floats = NDArray[np.float64]


@dataclass
class Swept:
    """The tallies: for each of `points` (steps of `axes`) and each of `outcomes`, rows and tokens read.

    `rows`, `counted` and `prompt` are (points, outcomes); `matched` is (axes, most steps): rows that would
    match by each axis alone. By axis, `unscored` counts rows without a score, and `overlap` is the least
    score that matched and the greatest that did not; `ids` and `scores` are of labelled rows.
    """

    axes: Sequence[Axis]
    points: Sequence[tuple[int, ...]]
    outcomes: list[Outcome] = field(default_factory=list)
    decisions: int = 0
    rows: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    counted: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    prompt: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    matched: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    unscored: Floats = field(default_factory=lambda: np.zeros(0))
    overlap: list[tuple[float, float]] = field(default_factory=list)
    ids: list[NDArray[np.uint64]] = field(default_factory=list)
    scores: list[Floats] = field(default_factory=list)


Wanted = Callable[[NDArray[np.uint64]], NDArray[np.bool_]]
"""Tells which request ids (rows of two words) have a label."""


def sweep(
    logged: Logged,
    policy: Policy,
    axes: list[Axis],
    labelled: Wanted,
    progress: Callable[[int], None] = lambda _: None,
) -> Swept:
    """Return the tallies of *policy* at every point over the decisions of *logged*.

    Raises `ConfigError` for too many points, `InvalidRecord` for other columns.
    """
    points = points_of(axes)
    steps = max(len(axis.values) for axis in axes)
    found = Swept(axes, points, matched=np.zeros((len(axes), steps)), unscored=np.zeros(len(axes)))
    found.overlap = [(np.inf, -np.inf) for _ in axes]
    decider = Decider(policy)
    for partition in logged.partitions():
        bill, first = Bills(logged.completions(partition)).all(), FirstOf()
        for batch in logged.batches(partition):
            kept, _ = firsts(batch, first).only(batch)
            if len(kept.decisions):
                _add(found, kept, _Context(decider, bill, labelled))
            progress(found.decisions)
    found.outcomes, width = decider.outcomes, len(decider.outcomes)
    for name in ("rows", "counted", "prompt"):
        setattr(found, name, _wide(getattr(found, name), len(points), width)[:, :width])
    return found


@dataclass(frozen=True, slots=True)
class _Context:
    decider: Decider
    bill: Bill
    labelled: Wanted


def _add(found: Swept, batch: Batch, context: _Context) -> None:
    scored = Scored.of(batch.signals, found.axes)
    rows = asked(batch)
    at, paid = context.bill.rows_of(places(batch.decisions))
    tokens = np.full(len(rows.ids), np.nan)
    if len(context.bill.offset):
        tokens = np.where(paid, context.bill.prompt[at], np.nan)
    found.decisions += len(rows.ids)
    _note_scores(found, scored)
    wanted = context.labelled(rows.ids)
    if wanted.any():
        found.ids.append(rows.ids[wanted])
        found.scores.append(np.stack([score[wanted] for score in scored.score], axis=1))
    _walk(found, scored, _Rows(rows, tokens), context.decider)


@dataclass(frozen=True, slots=True)
class _Rows:
    asked: Asked
    tokens: Floats


def _note_scores(found: Swept, scored: Scored) -> None:
    for number, axis in enumerate(found.axes):
        score = scored.score[number]
        known = score[~np.isnan(score)]
        found.unscored[number] += len(score) - len(known)
        ordered = np.sort(known)
        for step, threshold in enumerate(axis.values):
            found.matched[number, step] += len(ordered) - np.searchsorted(ordered, threshold, side="left")
        logged = scored.logged(number)[~np.isnan(score)]
        least, most = found.overlap[number]
        found.overlap[number] = (
            min(least, float(known[logged].min(initial=np.inf))),
            max(most, float(known[~logged].max(initial=-np.inf))),
        )


def _walk(found: Swept, scored: Scored, rows: _Rows, decider: Decider) -> None:
    """Decide all rows at the first point, then from point to point those whose match flips."""
    codes = np.zeros(0, dtype=np.int64)
    before: tuple[float, ...] = ()
    for number, steps in enumerate(found.points):
        thresholds = tuple(axis.values[step] for axis, step in zip(found.axes, steps, strict=True))
        if number == 0:
            codes = decider.decide(_part(rows.asked, scored.under(thresholds))).codes
        else:
            flips = _flips(scored, before, thresholds)
            if len(flips):
                part = _part(rows.asked, scored.under(thresholds, flips), flips)
                codes[flips] = decider.decide(part).codes
        before = thresholds
        _tally(found, number, codes, rows.tokens)


def _flips(scored: Scored, before: Sequence[float], now: Sequence[float]) -> Codes:
    flips = np.zeros(scored.flat.rows, dtype=np.bool_)
    for score, old, new in zip(scored.score, before, now, strict=True):
        if old != new:
            flips |= (score >= old) != (score >= new)
    return np.flatnonzero(flips)


def _part(rows: Asked, signals: Any, at: Codes | None = None) -> Asked:  # noqa: ANN401 - Arrow has no types
    if at is None:
        return Asked(rows.ids, rows.kinds, rows.asked, signals)
    return Asked(rows.ids[at], rows.kinds[at], rows.asked, signals)


def _tally(found: Swept, number: int, codes: Codes, tokens: Floats) -> None:
    known = ~np.isnan(tokens)
    width = int(codes.max()) + 1
    sums = (
        np.bincount(codes, minlength=width),
        np.bincount(codes[known], minlength=width),
        np.bincount(codes[known], weights=tokens[known], minlength=width),
    )
    for name, added in zip(("rows", "counted", "prompt"), sums, strict=True):
        table = _wide(getattr(found, name), len(found.points), len(added))
        table[number, : len(added)] += added
        setattr(found, name, table)


def _wide(table: Floats, points: int, width: int) -> Floats:
    """Return *table* with at least *width* columns."""
    if table.shape[0] == points and table.shape[1] >= width:
        return table
    grown = np.zeros((points, max(width, 2 * table.shape[1])))
    grown[: table.shape[0], : table.shape[1]] = table
    return grown
