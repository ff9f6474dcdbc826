"""What a kill run does in which round: drawn from its seed before it begins, and steered by what was hit.

Pure. A round is one SIGKILL of one worker, aimed at a cell of role x phase. What else disturbs the run
(an outage of the broker, a hanging provider, ...) begins with a round and goes on beside the following ones.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PHASES = ("idle", "in_step", "produced_uncommitted", "being_assigned")
"""The columns of the table; a kill may also find a worker `starting`, or nobody can tell (`unknown`)."""
WANTED = 5
"""How often each cell is to be hit in a run that has the rounds for it."""
ONCE = (
    "broker_outage",
    "broker_kill",
    "stop_long",
    "rolling_restart",
    "provider_hang",
    "triton_kill",
    "clock_jump",
    "claim_store_full",
)
"""Disturbances that a run of at least `FULL` rounds sees once each."""
SHORT = ("stop", "broker_outage")
"""What a shorter run sees."""
FULL = 10
_STOP_EVERY, _BROKER_EVERY = 10, 70
_AT_MOST = 2.0
_REST = 2
"""So many rounds go to other roles before one is aimed at again, but for `being_assigned`."""
_EARLY = 0.75
"""Disturbances queue, and the last one must be over before the last round."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: whom to kill, in which phase, and which disturbances begin with it."""

    number: int
    role: str
    phase: str
    beside: tuple[str, ...] = ()


class Schedule:
    """The rounds of one run. *directed* cells come before all others, for a planted fault that needs them."""

    def __init__(
        self,
        roles: Sequence[str],
        rounds: int,
        seed: int,
        directed: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.rounds = rounds
        self.hits: Counter[tuple[str, str]] = Counter()
        self._cells = [(role, phase) for role in roles for phase in PHASES]
        self._order = _order(sorted(roles), random.Random(seed))
        self._directed = list(directed)
        self._beside = beside(rounds, seed)
        self._number = 0
        self._recent: deque[str] = deque(maxlen=min(_REST, len(set(roles)) - 1))

    def next(self) -> Round | None:
        """Return the next round, None after the last.

        A run that has the rounds to hit every cell goes on for up to as many again while cells are missing.
        """
        enough = self._number >= self.rounds
        if enough and (self.rounds < WANTED * len(self._cells) or not self.missing):
            return None
        if self._number >= self.rounds * _AT_MOST:
            return None
        self._number += 1
        if self._directed:
            role, phase = self._directed[(self._number - 1) % len(self._directed)]
        else:
            role, phase = next(cell for cell in self._order if self._fits(*cell))
        self._recent.append(role)
        return Round(self._number, role, phase, self._beside.get(self._number, ()))

    def _fits(self, role: str, phase: str) -> bool:
        """Tell whether that cell is wanted now: it is missing, and its role had time to get anywhere.

        A provider's worker that is killed again and again only waits for its own open calls to time out.
        """
        if phase == "being_assigned":
            return self.hits[role, phase] < WANTED or not self.missing
        rested = [cell for cell in self.missing if cell[0] not in self._recent]
        return role not in self._recent and (self.hits[role, phase] < WANTED or not rested)

    def hit(self, role: str, phase: str) -> None:
        """Note in which *phase* a kill found *role*."""
        self.hits[role, phase] += 1

    @property
    def missing(self) -> list[tuple[str, str]]:
        """The cells that were not hit often enough."""
        return [cell for cell in self._cells if self.hits[cell] < WANTED]


def _order(roles: Sequence[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield cells for ever: each pass holds every one, `being_assigned` right after a kill of its role."""
    while True:
        groups = []
        for role in roles:
            phases = list(PHASES[:-1])
            rng.shuffle(phases)
            groups += [[(role, phases[0]), (role, PHASES[-1])], [(role, phases[1])], [(role, phases[2])]]
        rng.shuffle(groups)
        for group in groups:
            yield from group


def beside(rounds: int, seed: int) -> Mapping[int, tuple[str, ...]]:
    """Return round -> the disturbances that begin with it, spread over a run of *rounds*."""
    rng = random.Random(f"beside {seed}")
    names = list(SHORT)
    if rounds >= FULL:
        names = [*ONCE, *["stop"] * (rounds // _STOP_EVERY), *["broker_kill"] * (rounds // _BROKER_EVERY)]
        rng.shuffle(names)
    found: dict[int, tuple[str, ...]] = {}
    for index, name in enumerate(names):
        number = 1 + int((index + 0.5) * rounds * _EARLY / len(names))
        found[number] = (*found.get(number, ()), name)
    return found
