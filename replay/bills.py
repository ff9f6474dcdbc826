"""What requests cost, joined to their decisions a piece at a time: memory does not grow with the log.

Completions come in parts; of each it is known between which requests it bills, so that some decisions
need the parts of their neighbourhood only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from replay.logged_facts import whole
from replay.outcomes import Codes, Flags, coded

Floats = NDArray[np.float64]

JOB = ("step", "branch", "attempt")
PAID = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_ms")
_ORIGIN, _MODEL, _FIRST_SUM, _WIDTH = 0, 4, 5, 9
_KEPT_ROWS = 1_048_576
"""Completions that are kept in memory, about."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some completions: `origins` are the first and last request that they bill, None if not known."""

    load: Callable[[], pa.Table]
    origins: tuple[int, int] | None = None

    def bills(self, low: int, high: int) -> bool:
        """Tell whether it may bill any request between *low* and *high*."""
        return self.origins is None or (self.origins[0] <= high and low <= self.origins[1])


@dataclass(frozen=True, slots=True)
class Bill:
    """What requests cost, one row each where any call was answered; `model` is that of the first call.

    `latency` is the milliseconds that their answered calls took at the providers, added up.
    """

    offset: Codes
    cost: Floats
    prompt: Floats
    completion: Floats
    model: Codes
    models: list[str]
    latency: Floats

    def rows_of(self, offsets: Codes) -> tuple[Codes, Flags]:
        """Return the row of each of *offsets*, and whether there is one."""
        if not len(self.offset):
            return np.zeros(len(offsets), dtype=np.int64), np.zeros(len(offsets), dtype=np.bool_)
        if np.array_equal(self.offset, offsets):  # every request has its bill, which is usual
            return np.arange(len(offsets)), np.ones(len(offsets), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self.offset, offsets), len(self.offset) - 1)
        return at, self.offset[at] == offsets


class Bills:
    """The bills of a partition, whose completions are in *parts*, in the order of the log."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._loaded: OrderedDict[int, Floats] = OrderedDict()
        self._models: dict[str, int] = {}

    def of(self, offsets: Codes) -> Bill:
        """Return the bills of the requests at *offsets*: of each job the first completion counts."""
        if not len(offsets):
            return self._bill(_beside([]))
        low, high = int(offsets.min()), int(offsets.max())
        calls = _beside([self._calls(n) for n, part in enumerate(self._parts) if part.bills(low, high)])
        between = (calls[_ORIGIN] >= low) & (calls[_ORIGIN] <= high)
        return self._bill(calls if between.all() else calls[:, between])

    def all(self) -> Bill:
        """Return every bill of the partition, which memory has to hold."""
        return self._bill(_beside([self._calls(number) for number in range(len(self._parts))]))

    def _calls(self, number: int) -> Floats:
        if number in self._loaded:
            self._loaded.move_to_end(number)
            return self._loaded[number]
        calls = self._loaded[number] = self._columns(self._parts[number].load())
        while len(self._loaded) > 1 and sum(c.shape[1] for c in self._loaded.values()) > _KEPT_ROWS:
            self._loaded.popitem(last=False)
        return calls

    def _columns(self, table: pa.Table) -> Floats:
        """Return request, job, number of the model, tokens and cost, a line each; what is unknown is NaN."""
        calls = np.empty((_WIDTH, len(table)))
        if not len(table):
            return calls
        codes, names = coded([whole(table["model"])])
        own = np.array([self._models.setdefault(name, len(self._models)) for (name,) in names])
        calls[_ORIGIN] = whole(table["origin"]).field("offset").to_numpy(zero_copy_only=False)
        for at, name in enumerate((*JOB, "", *PAID), 1):
            calls[at] = own[codes] if at == _MODEL else table[name].to_numpy()
        tokens = calls[5:7]
        tokens[tokens < 0] = np.nan
        return calls

    def _bill(self, calls: Floats) -> Bill:
        calls = _first_of_job(calls)
        starts = np.flatnonzero(np.diff(calls[_ORIGIN], prepend=-1.0) > 0)
        heads, sums = calls[:_FIRST_SUM], calls[_FIRST_SUM:]
        if len(starts) < calls.shape[1]:
            heads, sums = heads[:, starts], np.add.reduceat(sums, starts, axis=1)
        return Bill(
            heads[_ORIGIN].astype(np.int64),
            sums[2],
            sums[0],
            sums[1],
            heads[_MODEL].astype(np.int64),
            list(self._models),
            sums[3],
        )


def _beside(parts: Sequence[Floats]) -> Floats:
    """Return the calls of all *parts*, without a copy where there is one."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts, axis=1) if parts else np.empty((_WIDTH, 0))


def _first_of_job(calls: Floats) -> Floats:
    """Return *calls* by job, the first of each."""
    if bool((np.diff(calls[_ORIGIN]) > 0).all()):
        return calls  # one call a request, in order: what most of a log is
    # The sort is stable, so the first of equal jobs is the first in the log.
    calls = calls[:, np.lexsort((calls[3], calls[2], calls[1], calls[0]))]
    first = np.ones(calls.shape[1], dtype=np.bool_)
    first[1:] = (calls[:_MODEL, 1:] != calls[:_MODEL, :-1]).any(axis=0)
    return calls[:, first]
