"""Telling the decision of a request from its repeats, in memory that grows with a day's traffic only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.dispatch import DEAD_LETTERED, TAKEN_BACK
from agents.ledger import HORIZON_MS
from replay.logged import Batch, outcomes, words
from replay.logged_facts import times_of
from replay.outcomes import Codes, Flags, Words

_MIXED = np.uint64(0x9E3779B97F4A7C15)
_PARTS = 8
"""Of the horizon: what is older goes a part at a time."""
_NEVER = -(2**62)
_NO_DECISION = {DEAD_LETTERED, TAKEN_BACK}


@dataclass(slots=True)
class _Run:
    """Sorted keys of decisions between two moments, and the moment (ms) of each."""

    keys: Words
    stamps: Codes
    oldest: int
    newest: int


@dataclass(slots=True)
class FirstOf:
    """Knows requests by 64 bits of the mixed id, for *horizon* ms, as the decision role itself does.

    A copy of a request that comes later than that is decided as a request of its own. What is held are
    16 bytes a decision of the horizon and up to a quarter more, in sorted runs that are merged as they
    become many, and the requests that were given up. What is told does not depend on the batches as long
    as no record is older than any before it by more than an eighth of the horizon.
    """

    horizon: int = HORIZON_MS
    given_up: set[int] = field(default_factory=set)
    """Requests that were given up and, so far, not decided after all."""
    _runs: list[_Run] = field(default_factory=list)

    def among(self, ids: Words, stamps: Codes, made: Flags) -> tuple[Flags, Flags]:
        """Return which rows are the decision of their request, and which repeat what was there before.

        *stamps* (ms) say when, *made* whether anything was decided; where not, the row gives its request
        up, and what decides it later is no repeat.
        """
        first, repeats = np.zeros(len(ids), dtype=np.bool_), np.zeros(len(ids), dtype=np.bool_)
        if not len(ids):
            return first, repeats
        keys = ids[:, 0] ^ (ids[:, 1] * _MIXED)
        order = np.argsort(keys)
        if (keys[order[1:]] == keys[order[:-1]]).any():
            order = np.argsort(keys, kind="stable")  # the order of equal ones counts; this takes longer
        self._forget(int(stamps.min()))
        rows = _Rows(keys[order], stamps[order], made[order], self._known(keys[order]))
        fresh, again = self._told(rows)
        first[order], repeats[order] = fresh, again
        self._remember(rows.keys[fresh], rows.stamps[fresh])
        return first, repeats

    def _told(self, rows: _Rows) -> tuple[Flags, Flags]:
        """Return `among` of sorted *rows*; one by one where rows of a batch depend on each other."""
        twice = np.concatenate(([False], rows.keys[1:] == rows.keys[:-1], [False]))
        single = rows.made & ~twice[1:] & ~twice[:-1]
        beyond = rows.stamps - rows.since > self.horizon
        fresh, again = single & beyond, single & ~beyond
        self._decided(rows.keys[fresh])
        known: dict[int, int] = {}
        for row in np.flatnonzero(~single).tolist():
            key, stamp = int(rows.keys[row]), int(rows.stamps[row])
            if stamp - known.setdefault(key, int(rows.since[row])) <= self.horizon:
                again[row] = True
            elif rows.made[row]:
                fresh[row], known[key] = True, stamp
                self.given_up.discard(key)
            else:
                again[row] = key in self.given_up
                self.given_up.add(key)
        return fresh, again

    def _decided(self, keys: Words) -> None:
        """Take those of the sorted *keys* out of what was given up."""
        if self.given_up and len(keys):
            given_up = np.fromiter(self.given_up, dtype=np.uint64, count=len(self.given_up))
            at = np.minimum(np.searchsorted(keys, given_up), len(keys) - 1)
            self.given_up.difference_update(given_up[keys[at] == given_up].tolist())

    def _known(self, keys: Words) -> Codes:
        """Return since when each of *keys* is known; the latest run has the last word."""
        since = np.full(len(keys), _NEVER, dtype=np.int64)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.keys, keys), len(run.keys) - 1)
            since = np.where(run.keys[at] == keys, run.stamps[at], since)
        return since

    def _forget(self, oldest: int) -> None:
        """Let go of what nothing is a repeat of, if nothing is older than *oldest* by much."""
        until = oldest - self.horizon - self.horizon // _PARTS
        self._runs = [run for run in self._runs if run.newest >= until]

    def _remember(self, keys: Words, stamps: Codes) -> None:
        if len(keys):
            self._runs.append(_run(keys, stamps))
            self._merge()

    def _merge(self) -> None:
        """Merge the last runs while they are of about one size, and within one part of the horizon."""
        while len(self._runs) > 1:
            before, last = self._runs[-2:]
            newest, oldest = max(before.newest, last.newest), min(before.oldest, last.oldest)
            if len(before.keys) > 2 * len(last.keys) or newest - oldest > self.horizon // _PARTS:
                return
            keys = np.concatenate([before.keys, last.keys])
            order = np.argsort(keys, kind="stable")
            stamps = np.concatenate([before.stamps, last.stamps])[order]
            self._runs[-2:] = [_run(keys[order], stamps)]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a batch, sorted by key, in their order where keys are equal."""

    keys: Words
    stamps: Codes
    made: Flags
    since: Codes


def _run(keys: Words, stamps: Codes) -> _Run:
    """Return the run of the sorted *keys*, of equal ones the last."""
    last = np.concatenate((keys[1:] != keys[:-1], [True]))
    if not last.all():
        keys, stamps = keys[last], stamps[last]
    return _Run(keys, stamps, int(stamps.min()), int(stamps.max()))


@dataclass(frozen=True, slots=True)
class Firsts:
    """What counts of a batch: the `rows` that decide their requests, and how many repeat others.

    `codes` and `texts` are `replay.logged.outcomes` of all rows.
    """

    rows: Flags
    repeats: int
    codes: Codes
    texts: list[tuple[Any, ...]]

    def only(self, batch: Batch) -> tuple[Batch, Codes]:
        """Return the rows that count, of *batch* and of `codes`."""
        return (batch, self.codes) if self.rows.all() else (batch.only(self.rows), self.codes[self.rows])


def firsts(batch: Batch, known: FirstOf) -> Firsts:
    """Return what counts of *batch*, the next of its partition, after what *known* has seen.

    A record that gives a request up, or takes its decision back, decides nothing. What is taken back was
    counted when it was read, and stands for its request: what replaces it is a repeat.
    """
    codes, texts = outcomes(batch)
    made = np.array([text[1] not in _NO_DECISION for text in texts], dtype=np.bool_)[codes]
    rows, repeats = known.among(words(batch.decisions), times_of(batch.decisions), made)
    return Firsts(rows, int(repeats.sum()), codes, texts)
