"""Completed-prefix commits: an offset is committed only when everything before it is done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class Segment:
    """Records of one partition that finish together: offsets from `start` up to, without, `end`."""

    start: int
    end: int
    since: int
    done: bool = False


class Prefix:
    """The completed prefix of one partition: segments begin in order and end in any order."""

    def __init__(self, committed: int) -> None:
        self._segments: deque[Segment] = deque()
        self._committed = committed

    def begin(self, start: int, end: int, now: int) -> Segment:
        """Note that the records from offset *start* up to, without, *end* are in flight."""
        segment = Segment(start, end, now)
        self._segments.append(segment)
        return segment

    def reach(self, position: int) -> None:
        """Note that nothing else lies before *position*: compaction and control records leave gaps."""
        end = self._segments[-1].end if self._segments else self._committed
        if position > end:
            self._segments.append(Segment(end, position, 0, done=True))

    def advance(self) -> int | None:
        """Return the offset to commit, or None if it has not moved since the last call."""
        moved = None
        while self._segments and self._segments[0].done:
            moved = self._segments.popleft().end
        if moved is not None and moved > self._committed:
            self._committed = moved
            return moved
        return None

    def span(self, end: int) -> int:
        """Return how far *end* would be from the oldest unfinished record; 0 where all are done."""
        start = next((s.start for s in self._segments if not s.done), end)
        return end - start

    @property
    def width(self) -> int:
        """How many offsets lie between the oldest record that is not committed and the newest begun."""
        return self._segments[-1].end - self._segments[0].start if self._segments else 0

    @property
    def unfinished(self) -> int:
        """How many segments are not done."""
        return sum(not s.done for s in self._segments)

    @property
    def oldest(self) -> int | None:
        """When (ms) the oldest unfinished segment began; None where there is none."""
        return next((s.since for s in self._segments if not s.done), None)
