"""What an archiver looks up of earlier records: whose a request is, and what a role observed.

The newest are at hand; what is older is read back from the files of the archive.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from replay.archive_commits import Commit, Place, Stored
from replay.archive_files import Files
from schemas.shape import Packer, avro_name
from schemas.signal import SignalSet
from schemas.topics import REQUESTS

_FIELDS = [avro_name(field) for field in dataclasses.fields(SignalSet)]
_OPEN = 4
"""Files of the archive that are kept in memory."""
_Kept = TypeVar("_Kept")


class Lookup:
    """Tenants and SignalSets by place and offset, *keep* of each partition at hand."""

    def __init__(self, files: Files, keep: int) -> None:
        self._files = files
        self._keep = keep
        self._commits: dict[Place, list[Commit]] = {}
        self._tenants: dict[int, dict[int, str]] = {}
        self._sets: dict[Place, dict[int, SignalSet]] = {}
        self._tables: dict[str, tuple[NDArray[np.int64], pa.Table]] = {}
        self._packer: Packer[SignalSet] = Packer(SignalSet)

    def know(self, place: Place, commits: Sequence[Commit]) -> None:
        """Take *commits* for what the archive has of *place*."""
        self._commits[place] = list(commits)

    def add(self, commit: Commit) -> None:
        """Add one behind the last."""
        self._commits[commit.place].append(commit)

    def forget(self, place: Place) -> None:
        """Let go of *place*."""
        self._commits.pop(place, None)
        self._sets.pop(place, None)
        if place[0] == REQUESTS:
            self._tenants.pop(place[1], None)

    def whose(self, partition: int, offset: int, tenant: str) -> None:
        """Remember whose the request at *offset* is."""
        self._remember(self._tenants.setdefault(partition, {}), offset, tenant)

    def observed(self, place: Place, offset: int, found: SignalSet) -> None:
        """Remember what was observed."""
        self._remember(self._sets.setdefault(place, {}), offset, found)

    def _remember(self, kept: dict[int, _Kept], offset: int, value: _Kept) -> None:
        kept[offset] = value
        if len(kept) > self._keep:
            del kept[next(iter(kept))]

    def tenant(self, partition: int, offset: int) -> str | None:
        """Return whose the request at *offset* is; None if neither memory nor archive has it."""
        at_hand = self._tenants.get(partition, {}).get(offset)
        if at_hand is not None:
            return at_hand
        for stored in self._having((REQUESTS, partition), offset):
            offsets, _ = self._table(stored, [])
            if _at(offsets, offset) is not None:
                return unquote(stored.folder.rpartition("/tenant=")[2])
        return None

    def signals(self, place: Place, offset: int) -> SignalSet | None:
        """Return the SignalSet at *offset*; None if neither memory nor archive has it."""
        at_hand = self._sets.get(place, {}).get(offset)
        if at_hand is not None:
            return at_hand
        for stored in self._having(place, offset):
            offsets, table = self._table(stored, _FIELDS)
            row = _at(offsets, offset)
            if row is not None:
                (found,) = table.slice(row, 1).to_pylist()
                return self._packer.unpack(found)
        return None

    def _having(self, place: Place, offset: int) -> list[Stored]:
        """Return the files that may have the row at *offset*."""
        commits = self._commits.get(place, [])
        at = bisect_right(commits, offset, key=lambda commit: commit.begin) - 1
        if at < 0 or offset >= commits[at].end:
            return []
        return [each for each in commits[at].files if each.first <= offset <= each.last]

    def _table(self, stored: Stored, columns: list[str]) -> tuple[NDArray[np.int64], pa.Table]:
        if stored.name not in self._tables:
            table = self._files.parquet(stored.name, []).read(columns=["offset", *columns])
            self._tables[stored.name] = (table["offset"].to_numpy(), table.select(columns))
            if len(self._tables) > _OPEN:
                del self._tables[next(iter(self._tables))]
        return self._tables[stored.name]


def _at(offsets: NDArray[np.int64], offset: int) -> int | None:
    row = int(np.searchsorted(offsets, offset))
    return row if row < len(offsets) and offsets[row] == offset else None
