"""Which records are suspected of having ended the process, and what each has done so far.

A partition's commit says who holds it open. A life that ends without taking that back has crashed;
the records behind its commit are then run one at a time, each named in the commit before it runs,
so that the next life knows which one it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agents.errors import PoisonRecord

OPEN, ALONE, CRASHES = "open", "alone", "crashes"
_OURS = frozenset({OPEN, ALONE, CRASHES})
CONDEMNED = 3
"""So many crashes while it ran alone make a record a dead letter."""


@dataclass(slots=True)
class Suspects:
    """Those of one partition: offsets before `until` run alone; `offset` ended that many processes."""

    until: int = 0
    offset: int = -1
    crashes: int = 0
    running: bool = False

    def crashes_of(self, offset: int) -> int:
        """Return how many processes *offset* has ended while it ran alone."""
        return self.crashes if offset == self.offset else 0

    def begin(self, offset: int) -> int:
        """Note that *offset* is about to run alone; return how many processes it has ended so far."""
        if offset != self.offset:
            self.offset, self.crashes = offset, 0
        self.running = True
        return self.crashes

    def marks(self) -> dict[str, Any]:
        """Return what the commit must say."""
        return {ALONE: self.offset, CRASHES: self.crashes} if self.running else {}


def suspects_of(metadata: str, committed: int, width: int) -> Suspects:
    """Return the suspects behind a commit: *width* offsets if the last holder crashed, else none."""
    marks = _parsed(metadata)
    crashed = OPEN in marks
    offset, crashes = marks.get(ALONE, -1), marks.get(CRASHES, 0)
    if not (isinstance(offset, int) and isinstance(crashes, int)) or offset < committed:
        offset, crashes = -1, 0
    until = committed + width if crashed else 0
    return Suspects(max(until, offset + 1), offset, crashes + crashed if offset >= 0 else 0)


def poison(crashes: int) -> PoisonRecord:
    """Return why a record that ended *crashes* processes is not run again."""
    return PoisonRecord(f"its step ended the process {crashes} times while nothing else was in flight")


def own_text(metadata: str) -> dict[str, Any]:
    """Return what a runner itself wrote into a commit's *metadata*."""
    return {name: value for name, value in _parsed(metadata).items() if name not in _OURS}


def _parsed(metadata: str) -> dict[str, Any]:
    try:
        found = json.loads(metadata) if metadata else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
