"""Records by topic and partition, in memory: what a fold reads and appends, recorded logs included.

Offsets may have gaps, as those of a recorded log do; nothing here waits or reads a clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter

from schemas.envelope import Envelope
from schemas.topics import family

Place = tuple[str, int]
_OFFSET = attrgetter("offset")


class Shelf:
    """The topics of a fold; those of the catalogue that have many partitions have *partitions*."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._records: dict[Place, list[Envelope]] = {}

    def partitions(self, topic: str) -> int:
        """Return how many partitions logical *topic* has; raises StopIteration if there is no such topic."""
        return 1 if family(topic).partitions == "one" else self._partitions

    def place(self, envelope: Envelope) -> None:
        """Add a recorded envelope; raises ValueError unless its offset is past the last one's."""
        records = self._records.setdefault((envelope.topic, envelope.partition), [])
        if records and envelope.offset <= records[-1].offset:
            message = f"offset {envelope.offset} of {envelope.topic} after {records[-1].offset}"
            raise ValueError(message)
        records.append(envelope)

    def append(
        self,
        place: Place,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> Envelope:
        """Add a record at the end of *place*, stamped *timestamp* (ms), and return its envelope."""
        envelope = Envelope(*place, self.end(place), timestamp, key, value, tuple(headers))
        self._records.setdefault(place, []).append(envelope)
        return envelope

    def begin(self, place: Place) -> int:
        """Return the first offset of *place*; 0 where it is empty."""
        records = self._records.get(place)
        return records[0].offset if records else 0

    def end(self, place: Place) -> int:
        """Return one past the last offset of *place*."""
        records = self._records.get(place)
        return records[-1].offset + 1 if records else 0

    def after(self, place: Place, offset: int, limit: int) -> Sequence[Envelope]:
        """Return up to *limit* records of *place* from *offset* on."""
        records = self._records.get(place, [])
        start = bisect_left(records, offset, key=_OFFSET)
        return records[start : start + limit]

    def at(self, place: Place, offset: int) -> Envelope:
        """Return the record at *offset*; raises KeyError if there is none."""
        found = self.after(place, offset, 1)
        if not found or found[0].offset != offset:
            raise KeyError((*place, offset))
        return found[0]

    def envelopes(self, topic: str) -> list[Envelope]:
        """Return every record of *topic*, partition by partition."""
        return [e for p in range(self.partitions(topic)) for e in self._records.get((topic, p), [])]
