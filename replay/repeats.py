"""Telling the first decision of a request from its repeats, in memory that does not grow with the log."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from agents.ledger import HORIZON_MS
from replay.outcomes import Flags, Words

_MIXED = np.uint64(0x9E3779B97F4A7C15)
_PARTS = 8
"""Of the horizon: what is older goes a part at a time."""


@dataclass(slots=True)
class _Run:
    """Sorted keys of decisions between two moments."""

    keys: Words
    oldest: int
    newest: int


@dataclass(slots=True)
class FirstOf:
    """Knows requests by 64 bits of the mixed id, for *horizon* ms, as the decision role itself does.

    A later copy of a request is decided as a request of its own. What is held are 8 bytes a decision of
    the horizon, in sorted runs that are merged as they become many.
    """

    horizon: int = HORIZON_MS
    _runs: list[_Run] = field(default_factory=list)

    def among(self, ids: Words, timestamps: tuple[int, int] = (0, 0)) -> Flags:
        """Return which of *ids* were not there before, and are the first of their kind here.

        *timestamps* are those (ms) of the oldest and the newest of them.
        """
        oldest, newest = timestamps
        self._runs = [run for run in self._runs if run.newest >= oldest - self.horizon]
        keys = ids[:, 0] ^ (ids[:, 1] * _MIXED)
        distinct, first = np.unique(keys, return_index=True)
        known = np.zeros(len(distinct), dtype=np.bool_)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.keys, distinct), len(run.keys) - 1)
            known |= run.keys[at] == distinct
        fresh = np.zeros(len(keys), dtype=np.bool_)
        fresh[first[~known]] = True
        if not known.all():
            self._runs.append(_Run(distinct[~known], oldest, newest))
            self._merge()
        return fresh

    @property
    def held(self) -> int:
        """How many decisions are remembered."""
        return sum(len(run.keys) for run in self._runs)

    def _merge(self) -> None:
        """Merge the last runs while they are of about one size, and within one part of the horizon."""
        while len(self._runs) > 1:
            before, last = self._runs[-2:]
            newest, oldest = max(before.newest, last.newest), min(before.oldest, last.oldest)
            if len(before.keys) > 2 * len(last.keys) or newest - oldest > self.horizon // _PARTS:
                return
            keys = np.sort(np.concatenate([before.keys, last.keys]), kind="stable")
            self._runs[-2:] = [_Run(keys, oldest, newest)]
