"""A small world around one partition of a `Gather`: logs, signal roles, an owner that crashes.

The world knows the truth (what each log holds, who was decided), so it can judge what the gather
did. Time is the world's own clock; the log stamps records with it plus a fixed skew below a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.gather import GRACE_MS, NO_ORIGIN, Arrival, Gather, Gathered

REQUESTS = Gather.REQUESTS
FETCH = 3


@dataclass(frozen=True)
class Asked:
    """A record of `requests`: what it demands, and until when; one that cannot be decoded asks nothing."""

    offset: int
    demanded: tuple[str, ...]
    decide_by: int
    decodable: bool


@dataclass(frozen=True)
class Emitted:
    """A record of a signal topic."""

    offset: int
    timestamp: int
    origin: int


class Role:
    """Reads `requests` in order and emits out of order, never more than *span* offsets apart."""

    def __init__(self, name: str, span: int) -> None:
        self.name = name
        self._span = span
        self._next = 0
        self._open: list[int] = []
        self._committed = 0
        self._garbled: set[int] = set()

    def work(
        self, world: "World", picks: Sequence[int], *, twice: bool = False, garbled: bool = False
    ) -> None:
        """Start what the span allows, then finish one of the started requests for each pick."""
        for pick in picks:
            self._start(world)
            if not self._open:
                return
            asked = world.requests[self._open.pop(pick % len(self._open))]
            if not asked.decodable or self.name not in asked.demanded:
                continue
            if garbled:
                self._garbled.add(asked.offset)  # for ever: a role encodes a record alike each time
            for _ in range(2 if twice else 1):
                world.emit(self.name, NO_ORIGIN if asked.offset in self._garbled else asked.offset)

    def _start(self, world: "World") -> None:
        while self._next < len(world.requests) and self._fits(world):
            self._open.append(self._next)
            self._next += 1

    def _fits(self, world: "World") -> bool:
        oldest = min((world.requests[i].offset for i in self._open), default=None)
        return oldest is None or world.requests[self._next].offset - oldest < self._span

    def commit(self) -> None:
        """Commit the completed prefix."""
        self._committed = min(self._open, default=self._next)

    def crash(self) -> None:
        """Start again from the last commit: what was emitted since is emitted again."""
        self._next, self._open = self._committed, []

    @property
    def idle(self) -> bool:
        """Whether nothing is started and unfinished."""
        return not self._open


@dataclass
class World:
    """The logs of one partition and the clock."""

    roles: dict[str, Role]
    skew: int
    now: int = 1_000_000
    requests: list[Asked] = field(default_factory=list)
    signals: dict[str, list[Emitted]] = field(default_factory=dict)
    decisions: list[int] = field(default_factory=list)
    committed: dict[str, int] = field(default_factory=dict)
    _first: dict[tuple[str, int], Emitted] = field(default_factory=dict)

    def ask(self, gap: int, demanded: Sequence[str], patience: int, *, decodable: bool) -> None:
        """Append a request *gap* offsets behind the last."""
        offset = self.end(REQUESTS) + gap
        self.requests.append(Asked(offset, tuple(demanded), self.now + patience, decodable))

    def emit(self, role: str, origin: int) -> None:
        """Append a signal, stamped by the log."""
        log = self.signals.setdefault(role, [])
        record = Emitted(len(log), self.now + self.skew, origin)
        log.append(record)
        if origin != NO_ORIGIN:
            self._first.setdefault((role, origin), record)

    def end(self, source: str) -> int:
        """Return the end offset of *source*."""
        if source == REQUESTS:
            return self.requests[-1].offset + 1 if self.requests else 0
        return len(self.signals.get(source, ()))

    def read(self, source: str, position: int, count: int) -> list[Arrival]:
        """Return at most *count* records of *source* from *position*."""
        if source != REQUESTS:
            found = self.signals.get(source, [])[position : position + count]
            return [Arrival(s.offset, s.timestamp, s.origin, s) for s in found]
        asked = [a for a in self.requests if a.offset >= position][:count]
        return [
            Arrival(a.offset, 0, a.offset, a, a.demanded, a.decide_by)
            if a.decodable
            else Arrival(a.offset, 0, NO_ORIGIN, None)
            for a in asked
        ]

    def undecided(self) -> list[Asked]:
        """Return the requests without a decision in the log, oldest first."""
        decided = set(self.decisions)
        return [a for a in self.requests if a.decodable and a.offset not in decided]

    def lacks(self, asked: Asked) -> bool:
        """Whether the log holds no signal of some role that *asked* demands."""
        return any((role, asked.offset) not in self._first for role in asked.demanded)

    def judge(self, gathered: Gathered) -> None:
        """Assert that *gathered* holds exactly what the log says should count."""
        asked: Asked = gathered.request
        assert gathered.origin == asked.offset
        assert set(gathered.parts) | set(gathered.late) == set(asked.demanded)
        assert not set(gathered.parts) & set(gathered.late)
        for role, part in gathered.parts.items():
            assert part.record == self._first[role, asked.offset], "not the first in the log"
            assert part.record.timestamp <= asked.decide_by, "a late signal counted"
        for role in gathered.late:
            first = self._first.get((role, asked.offset))
            stamped = self.now + self.skew if first is None else first.timestamp
            assert stamped > asked.decide_by, "a signal that is in time in the log did not count"

    def judge_commit(self, source: str, offset: int) -> None:
        """Assert that a commit passes nothing that an undecided request needs."""
        assert offset >= self.committed.get(source, 0), "a commit went back"
        assert offset <= self.end(source), "a commit passed the end"
        low = min((a.offset for a in self.undecided()), default=None)
        if low is None:
            return
        if source == REQUESTS:
            assert offset <= low, "the commit passed an undecided request"
            return
        passed = [s.origin for s in self.signals.get(source, [])[:offset]]
        assert all(origin < low for origin in passed), "the commit passed a signal that is still needed"


class Owner:
    """One life of the process that owns the partition."""

    def __init__(self, world: World, kind: type[Gather], window: int, decided: Sequence[int]) -> None:
        self.world = world
        self.window = window
        self.gather = kind(tuple(world.roles), window, world.committed, decided)
        self.sources = (REQUESTS, *world.roles)
        self._position = {s: world.committed.get(s, 0) for s in self.sources}
        self._leaked = dict.fromkeys(self.sources, 0)
        self._made: set[int] = set()
        self.sent: list[int] = []
        self.landed: list[int] = []

    def read(self, source: str, count: int, *, pause_lost: bool = False) -> bool:
        """Read from *source* unless it is paused; a lost pause reads all the same."""
        paused = source in self.gather.paused()
        if paused and not pause_lost:
            return False
        arrivals = self.world.read(source, self._position[source], min(count, FETCH))
        if not arrivals:
            return False
        self._leaked[source] += len(arrivals) if paused else 0
        self._position[source] = arrivals[-1].offset + 1
        self.gather.offer(source, arrivals)
        self._decide()
        return True

    def _decide(self) -> None:
        for gathered in self.gather.ready():
            assert gathered.origin not in self._made, "decided twice in one life"
            self.world.judge(gathered)
            self._made.add(gathered.origin)
            self.sent.append(gathered.origin)
        self._check_held()

    def _check_held(self) -> None:
        for source in self.sources:
            if source not in self.gather.paused():
                self._leaked[source] = 0
        backlog = sum(FETCH + leaked for leaked in self._leaked.values())
        assert self.gather.held <= self.window * len(self.sources) + backlog, "more is held than the bound"

    def land(self, pick: int) -> None:
        """Let the broker take one of the decisions that were sent."""
        if self.sent:
            origin = self.sent.pop(pick % len(self.sent))
            self.world.decisions.append(origin)
            self.landed.append(origin)

    def acknowledge(self, pick: int) -> None:
        """Let the owner learn of one decision that the broker took."""
        if self.landed:
            self.gather.settle(self.landed.pop(pick % len(self.landed)))
            self._decide()

    def commit(self) -> None:
        """Commit what the gather allows, all inputs in one request."""
        moved = dict(self.gather.commits())
        for source, offset in moved.items():
            self.world.judge_commit(source, offset)
        self.world.committed.update(moved)
        for box in self.gather._inputs.values():
            assert len(box.unsettled) <= self.window + 1, "more stops the commit than fits the window"

    def tick(self, late_by: int = 0) -> None:
        """Fetch the ends that deadlines need, then let them fire; the clock moves in between."""
        asked_at = self.world.now
        wanted = self.gather.overdue(asked_at)
        self.world.now += late_by
        self.gather.ends({s: self.world.end(s) for s in wanted}, asked_at)
        self.gather.expire(asked_at)
        self._decide()

    def run_dry(self) -> None:
        """Do everything that can be done without more records and without more time."""
        while True:
            moved = [self.read(source, FETCH) for source in self.sources]
            self.tick()
            busy = bool(self.sent or self.landed)
            while self.sent or self.landed:
                self.land(0)
                self.acknowledge(0)
            if not any(moved) and not busy:
                return


def past_all_deadlines(world: World) -> int:
    """Return a time at which every deadline has passed on every clock."""
    return max([world.now, *(a.decide_by for a in world.requests)]) + 3 * GRACE_MS
