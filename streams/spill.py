"""Records of one partition, of which only the newest are in memory: the others are in a file without a name.

So a log that lives in one process may hold more than its memory. Nothing is dropped, and offsets stay.
"""

from __future__ import annotations

import pickle
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from typing import IO

from schemas.envelope import Envelope

HOT_BYTES = 256 * 1024
"""What a partition keeps in memory before the older half of it goes to the file."""
_OVERHEAD = 320
"""Bytes that an envelope takes besides key and value."""

Row = Envelope | None


class Spill:
    """A file that only this process can reach, opened at the first write; the system drops it at the end."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, rows: Sequence[Row]) -> tuple[int, int]:
        """Append *rows*; return where they begin, and their length in bytes."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="signalbox-log-")  # noqa: SIM115 - closed with this
            weakref.finalize(self, self._file.close)
        packed = [
            None if e is None else (e.topic, e.partition, e.offset, e.timestamp, e.key, e.value, e.headers)
            for e in rows
        ]
        data = pickle.dumps(packed, pickle.HIGHEST_PROTOCOL)
        self._file.seek(self.size)
        self._file.write(data)
        start, self.size = self.size, self.size + len(data)
        return start, len(data)

    def read(self, start: int, length: int) -> list[Row]:
        """Return the rows that were written at *start*."""
        if self._file is None:
            raise ValueError("nothing was written")
        self._file.seek(start)
        # Only what this process wrote itself is read: nobody else can name the file.
        packed = pickle.loads(self._file.read(length))  # noqa: S301 - as said
        return [None if row is None else Envelope(*row) for row in packed]


class Records:
    """The rows of one partition by offset; None is an offset without a record.

    Without a *spill* all of them stay in memory.
    """

    def __init__(self, spill: Spill | None = None, hot_bytes: int = HOT_BYTES) -> None:
        self._spill = spill
        self._most = hot_bytes
        self._hot: list[Row] = []
        self._hot_bytes = 0
        self._base = 0
        self._firsts: list[int] = []
        self._places: list[tuple[int, int]] = []
        self._read: tuple[int, list[Row]] = (-1, [])

    def __len__(self) -> int:
        return self._base + len(self._hot)

    def append(self, row: Row) -> None:
        """Add *row* at the end."""
        self._hot.append(row)
        self._hot_bytes += _size(row)
        if self._spill is not None and self._hot_bytes > self._most and len(self._hot) > 1:
            self._cool(self._spill)

    def _cool(self, spill: Spill) -> None:
        half = len(self._hot) // 2
        rows = self._hot[:half]
        self._firsts.append(self._base)
        self._places.append(spill.write(rows))
        del self._hot[:half]
        self._base += half
        self._hot_bytes -= sum(_size(row) for row in rows)

    def part(self, start: int, stop: int) -> list[Row]:
        """Return the rows at offsets *start* to *stop* (exclusive), as far as there are any."""
        found: list[Row] = []
        while start < min(stop, self._base):
            index = bisect_right(self._firsts, start) - 1
            first, rows = self._firsts[index], self._segment(index)
            found += rows[start - first : stop - first]
            start = first + len(rows)
        if start < stop:
            found += self._hot[max(start - self._base, 0) : stop - self._base]
        return found

    def _segment(self, index: int) -> list[Row]:
        """Return one piece of the file; whoever reads on finds the last one at hand."""
        if self._read[0] != index and self._spill is not None:
            self._read = (index, self._spill.read(*self._places[index]))
        return self._read[1]


def _size(row: Row) -> int:
    return _OVERHEAD if row is None else _OVERHEAD + len(row.key or b"") + len(row.value or b"")
