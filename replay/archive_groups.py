"""Row groups of an archive's files by offset: the last ones stay in memory, within a bound.

Decisions and what they name lie in the same order in their topics, so that whoever goes through the
decisions needs the same few groups again and again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from agents.errors import InvalidRecord
from replay.archive_commits import Stored
from replay.archive_files import Files, TableFile

HELD_BYTES = 512 * 1024 * 1024
"""Of rows that stay in memory, at most, unless one group is larger: about eight groups of large rows."""
_Span = tuple[int, int]


class Groups:
    """Some *columns* of the tables in *files*, sorted by offset, at most *most* bytes of them at hand."""

    def __init__(self, files: Files, columns: Sequence[str], most: int = HELD_BYTES) -> None:
        self._files = files
        self._columns = ["offset", *columns]
        self._most = most
        self._spans: dict[str, list[_Span]] = {}
        self._held: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self.held_bytes = 0

    def between(self, stored: Stored, low: int, high: int) -> Iterator[pa.Table]:
        """Yield the rows of *stored* at offsets *low* to *high*, in order.

        Raises `InvalidRecord` if the file is damaged.
        """
        try:
            for number, (first, last) in enumerate(self._groups(stored)):
                if first <= high and last >= low:
                    yield _within(self._group(stored, number), low, high)
        except pa.ArrowInvalid as error:
            raise InvalidRecord(f"{self._files.path(stored.name)}: damaged: {error}") from None

    def _groups(self, stored: Stored) -> list[_Span]:
        if stored.name not in self._spans:
            self._spans[stored.name] = _spans(self._files.parquet(stored.name, []), stored)
        return self._spans[stored.name]

    def _group(self, stored: Stored, number: int) -> pa.Table:
        key = (stored.name, number)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        table = self._files.parquet(stored.name, []).read_row_group(number, columns=self._columns)
        self._held[key] = table
        self.held_bytes += table.nbytes
        while self.held_bytes > self._most and len(self._held) > 1:
            self.held_bytes -= self._held.popitem(last=False)[1].nbytes
        return table


def _spans(file: TableFile, stored: Stored) -> list[_Span]:
    """Return the first and last offset of each group of *file*, of the whole file where it does not say."""
    told = file.metadata
    paths = [told.schema.column(number).path for number in range(told.num_columns)]
    at = paths.index("offset")
    found = [told.row_group(number).column(at).statistics for number in range(told.num_row_groups)]
    whole = (stored.first, stored.last)
    return [(s.min, s.max) if s is not None and s.has_min_max else whole for s in found]


def _within(table: pa.Table, low: int, high: int) -> pa.Table:
    offsets = table["offset"].to_numpy()
    start = int(np.searchsorted(offsets, low))
    return table.slice(start, int(np.searchsorted(offsets, high, side="right")) - start)
