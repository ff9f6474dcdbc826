"""Join the records of one partition by origin: a pure state machine, no clock and no I/O.

One `Gather` serves one partition of one role. It is told what was read (`offer`), what has been
decided and acknowledged (`settle`), the time and where its inputs end; it tells which origins are
ready, which inputs must be paused, and how far each input may be committed. Rules (numbers are
offsets in `requests`; *low* is the oldest origin that is not settled):

window      nothing with an origin at or after low + W is let in; its input is paused instead.
commit      on every input the commit stops before the first record whose origin is >= low, so
            that a re-read request never waits for a signal that was committed past.
time        a SignalSet counts if its log timestamp <= decide_by; the deadline fires one second
            after it, once each missing input was read to the end it had after that, or is paused
            at an origin so far ahead that its role, whose span is below W, is done with this one.

At most W x (inputs + 1) records are held, one fetch per input that the window stopped, and what the
driver still offers of paused inputs (fetched before the pause was applied, or after it was lost).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GRACE_MS = 1000
NO_DEADLINE = 1 << 62
NO_ORIGIN = -1
LOST = object()
"""What arrives in place of a record that cannot be read: nothing better will come for its origin."""


@dataclass(frozen=True, slots=True)
class Part:
    """A derived record that was let in: where it lies in its input, and what it is."""

    offset: int
    timestamp: int
    record: Any


@dataclass(frozen=True, slots=True)
class Gathered:
    """A request with all that will ever count for it.

    `late` inputs came or stayed away too long, or what came could not be read.
    """

    origin: int
    request: Any
    parts: Mapping[str, Part]
    late: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record as read: its offset in its input and the origin it belongs to (NO_ORIGIN for none)."""

    offset: int
    timestamp: int
    origin: int
    record: Any
    demanded: tuple[str, ...] = ()
    decide_by: int = NO_DEADLINE


@dataclass(slots=True)
class _Pending:
    request: Any = None
    demanded: tuple[str, ...] | None = None
    decide_by: int = NO_DEADLINE
    parts: dict[str, Part] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)

    def missing(self) -> list[str]:
        return [s for s in self.demanded or () if s not in self.parts and s not in self.late]


@dataclass(slots=True)
class _Input:
    position: int
    committed: int
    held: deque[Arrival] = field(default_factory=deque)
    # (offset, origin) of what was let in and stops the commit. Origins rise: behind a record, one of
    # an equal or older origin stops nothing, so that repeated signals do not pile up here.
    unsettled: deque[tuple[int, int]] = field(default_factory=deque)
    reached: int = 0
    end: int = 0
    end_asked_at: int = -1


class Gather:
    """Joins `requests` with *inputs* for one partition.

    *start* gives the committed offset of "requests" and of each input; *decided* are origins
    at or after it that are known to be decided already (read back from the role's own output).
    """

    REQUESTS = "requests"

    def __init__(
        self, inputs: Sequence[str], window: int, start: Mapping[str, int], decided: Iterable[int] = ()
    ) -> None:
        if window < 1:
            message = f"a window of {window} lets nothing in"
            raise ValueError(message)
        self.window = window
        self._inputs = {s: _Input(start.get(s, 0), start.get(s, 0)) for s in (self.REQUESTS, *inputs)}
        self._pending: dict[int, _Pending] = {}
        self._early: list[int] = []  # a heap of the origins of pending parts whose request was not read
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._known = set(decided)
        self._ready: deque[Gathered] = deque()
        self.late_signals = 0

    @property
    def low(self) -> int:
        """The oldest origin that is not settled; where all are, the next one to come."""
        return self._order[0] if self._order else self._inputs[self.REQUESTS].position

    @property
    def requested(self) -> int:
        """The offset in `requests` before which every request has been let in."""
        return self._inputs[self.REQUESTS].position

    @property
    def held(self) -> int:
        """How many records are in memory: pending parts, requests and what was read too early."""
        return sum(len(p.parts) + 1 for p in self._pending.values()) + sum(
            len(i.held) for i in self._inputs.values()
        )

    @property
    def unsettled(self) -> int:
        """How many requests were let in and are not settled."""
        return len(self._open)

    def offer(self, source: str, arrivals: Iterable[Arrival]) -> None:
        """Take in what was read from *source*, in its order."""
        box = self._inputs[source]
        box.held.extend(a for a in arrivals if a.offset >= self._next_offset(box))
        self._drain()

    @staticmethod
    def _next_offset(box: _Input) -> int:
        return box.held[-1].offset + 1 if box.held else box.position

    def reach(self, source: str, position: int) -> None:
        """Note that *source* was read up to *position*: gaps of offsets hold nothing."""
        self._inputs[source].reached = position
        self._drain()

    def lose(self, source: str, origin: int) -> None:
        """Note that the record of *source* for *origin* was unreadable: it is not waited for."""
        pending = self._pending.get(origin)
        if pending is None:
            if origin < self._inputs[self.REQUESTS].position or origin in self._known:
                return
            pending = self._pending[origin] = _Pending()
            heapq.heappush(self._early, origin)
        if source not in pending.parts:
            pending.late.add(source)
        if pending.demanded is not None and not pending.missing():
            self._complete(origin)

    def strays_at(self) -> int | None:
        """Return when (ms) `strays` should be asked for; None while nothing is ahead of `requests`."""
        if any(box.held for source, box in self._inputs.items() if source != self.REQUESTS):
            return 0
        stamps = [part.timestamp for origin in self._early for part in self._pending[origin].parts.values()]
        return min(stamps) + GRACE_MS if stamps else None

    def strays(self, end: int, now: int) -> list[tuple[str, int]]:
        """Take out what claims an origin at or after *end*, where `requests` ends: (input, its offset).

        What lies inside the window is given a second of grace, and would else meet a later request.
        """
        found = []
        for source, box in self._inputs.items():
            while source != self.REQUESTS and box.held and box.held[0].origin >= end:
                arrival = box.held.popleft()
                box.position = arrival.offset + 1
                found.append((source, arrival.offset))
        for origin in [origin for origin in self._early if origin >= end]:
            found += self._take_out(origin, end, now)
        self._drain()
        return found

    def _take_out(self, origin: int, end: int, now: int) -> list[tuple[str, int]]:
        pending = self._pending[origin]
        if any(now < part.timestamp + GRACE_MS for part in pending.parts.values()):
            return []
        self._early.remove(origin)
        heapq.heapify(self._early)
        del self._pending[origin]
        for source in pending.parts:
            # Behind it lie records of requests before *end*, which it has kept from being committed.
            box = self._inputs[source]
            box.unsettled = deque((at, min(claimed, end - 1)) for at, claimed in box.unsettled)
        return [(source, part.offset) for source, part in pending.parts.items()]

    def ready(self) -> list[Gathered]:
        """Return the origins that became complete since the last call, each exactly once."""
        out = list(self._ready)
        self._ready.clear()
        return out

    def settle(self, origin: int) -> None:
        """Note that all that *origin* caused is acknowledged."""
        self._open.discard(origin)
        while self._order and self._order[0] not in self._open:
            self._order.popleft()
        self._drain()

    def waits_until(self) -> int:
        """Return until when (ms) the oldest origin may rightly wait for an input; 0 if it waits for none."""
        pending = self._pending.get(self.low)
        return pending.decide_by + GRACE_MS if pending is not None and pending.missing() else 0

    def paused(self) -> frozenset[str]:
        """Return the inputs that run ahead and must not be read now; re-apply after a rebalance."""
        return frozenset(s for s, box in self._inputs.items() if box.held)

    def overdue(self, now: int) -> frozenset[str]:
        """Return the inputs whose end must be fetched to let a deadline of *now* (ms) fire."""
        wanted: set[str] = set()
        for pending in self._expired(now):
            for source in pending.missing():
                box = self._inputs[source]
                if not box.held and box.end_asked_at < pending.decide_by + GRACE_MS:
                    wanted.add(source)
        return frozenset(wanted)

    def ends(self, ends: Mapping[str, int], asked_at: int) -> None:
        """Note the end offsets of inputs, fetched when the clock said *asked_at* (ms) or later."""
        for source, end in ends.items():
            self._inputs[source].end = end
            self._inputs[source].end_asked_at = asked_at

    def expire(self, now: int) -> None:
        """Make ready what is past its deadline and can be shown to miss nothing in time."""
        for origin, pending in list(self._pending.items()):
            due = pending.demanded is not None and now >= pending.decide_by + GRACE_MS
            if due and all(self._exhausted(s, origin, pending.decide_by) for s in pending.missing()):
                pending.late.update(pending.missing())
                self._complete(origin)

    def commits(self) -> Mapping[str, int]:
        """Return source -> offset to commit, for every input whose commit moved."""
        moved: dict[str, int] = {}
        low = self.low
        for source, box in self._inputs.items():
            while box.unsettled and box.unsettled[0][1] < low:
                box.unsettled.popleft()
            offset = box.unsettled[0][0] if box.unsettled else box.position
            if offset > box.committed:
                box.committed = moved[source] = offset
        return moved

    def _exhausted(self, source: str, origin: int, decide_by: int) -> bool:
        box = self._inputs[source]
        if box.held:
            # What is held may include this origin's signal, unless the window lies between the two.
            return box.held[0].origin - self.window >= origin
        return box.end_asked_at >= decide_by + GRACE_MS and box.position >= box.end

    def _expired(self, now: int) -> Iterable[_Pending]:
        return (p for p in self._pending.values() if p.demanded is not None and now >= p.decide_by + GRACE_MS)

    def _drain(self) -> None:
        """Let in, input by input, whatever is inside the window."""
        moved = True
        while moved:
            moved = False
            for source, box in self._inputs.items():
                while box.held and self._fits(source, box.held[0]):
                    self._admit(source, box, box.held.popleft())
                    moved = True
                moved |= self._pass_gap(source, box)

    def _pass_gap(self, source: str, box: _Input) -> bool:
        if box.held or box.reached <= box.position:
            return False
        box.position = box.reached
        if source == self.REQUESTS:
            self._forget_before(box.position)
        return True

    def _fits(self, source: str, arrival: Arrival) -> bool:
        # With nothing unsettled any request is the next one, however far a gap of offsets reaches.
        if source == self.REQUESTS and not self._order:
            return True
        return arrival.origin < self.low + self.window

    def _admit(self, source: str, box: _Input, arrival: Arrival) -> None:
        box.position = arrival.offset + 1
        if arrival.origin > (box.unsettled[-1][1] if box.unsettled else NO_ORIGIN):
            box.unsettled.append((arrival.offset, arrival.origin))
        if source == self.REQUESTS:
            self._forget_before(arrival.offset if arrival.origin != NO_ORIGIN else box.position)
        if arrival.origin == NO_ORIGIN:
            return
        if source == self.REQUESTS:
            self._admit_request(arrival)
        else:
            self._admit_part(source, arrival)

    def _forget_before(self, origin: int) -> None:
        """Drop the parts of offsets before *origin* that turned out to hold no request."""
        while self._early and self._early[0] < origin:
            del self._pending[heapq.heappop(self._early)]

    def _admit_request(self, arrival: Arrival) -> None:
        origin = arrival.origin
        if origin in self._known:
            self._known.discard(origin)
            return
        if self._early and self._early[0] == origin:
            heapq.heappop(self._early)
        self._order.append(origin)
        self._open.add(origin)
        pending = self._pending.setdefault(origin, _Pending())
        pending.request, pending.demanded = arrival.record, arrival.demanded
        pending.decide_by = arrival.decide_by
        for source in [s for s, p in pending.parts.items() if p.timestamp > arrival.decide_by]:
            del pending.parts[source]
            pending.late.add(source)
            self.late_signals += 1
        if not pending.missing():
            self._complete(origin)

    def _admit_part(self, source: str, arrival: Arrival) -> None:
        origin = arrival.origin
        read = origin < self._inputs[self.REQUESTS].position
        pending = self._pending.get(origin)
        if (read and pending is None) or origin in self._known:
            self.late_signals += 1  # of a decided origin: counted and acknowledged
            return
        if pending is None:
            pending = self._pending[origin] = _Pending()
            heapq.heappush(self._early, origin)
        if source in pending.parts or source in pending.late:
            return  # the first in the log counts
        if arrival.record is LOST:
            pending.late.add(source)
        elif arrival.timestamp > pending.decide_by:
            pending.late.add(source)
            self.late_signals += 1
        else:
            pending.parts[source] = Part(arrival.offset, arrival.timestamp, arrival.record)
        if pending.demanded is not None and not pending.missing():
            self._complete(origin)

    def _complete(self, origin: int) -> None:
        pending = self._pending.pop(origin)
        demanded = pending.demanded or ()
        parts = {s: pending.parts[s] for s in demanded if s in pending.parts}
        late = tuple(s for s in demanded if s in pending.late)
        self._ready.append(Gathered(origin, pending.request, parts, late))
