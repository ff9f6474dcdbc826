"""Row groups at hand: read once while they are needed, and never more of them than the bound."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from replay.archive import Source, archive
from replay.archive_commits import Stored, commits_in
from replay.archive_files import Files
from replay.archive_groups import Groups
from replay.archived_cases import archived_evidence
from replay.decide import decide_again
from replay.view import MemoryLog
from tests.replay.logs import LogBuilder

ROWS, GROUP = 100, 10
STORED = Stored("signals/date=2026-09-21/tenant=acme/a.parquet", "signals", ROWS, 0, 2 * ROWS - 2)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: no power is lost here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class Counted(pq.ParquetFile):  # type: ignore[misc] # pyarrow has no types
    """A Parquet file that counts in *reads* which of its groups are read."""

    reads: ClassVar[Counter[int]] = Counter()

    def read_row_group(self, i: int, *more: Any, **others: Any) -> pa.Table:
        """Count and read."""
        Counted.reads[i] += 1
        return super().read_row_group(i, *more, **others)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """A place with one file of ten groups, at every second offset, of which reads are counted."""
    found = Files(str(tmp_path))
    (tmp_path / STORED.folder).mkdir(parents=True)
    table = pa.table({"offset": range(0, 2 * ROWS, 2), "role": ["r"] * ROWS, "more": range(ROWS)})
    pq.write_table(table, found.path(STORED.name), row_group_size=GROUP)
    monkeypatch.setattr("replay.archive_files.pq.ParquetFile", Counted)
    Counted.reads = Counter()
    return found


def offsets(groups: Groups, low: int, high: int) -> list[int]:
    """Return what is there from *low* to *high*."""
    return [offset for table in groups.between(STORED, low, high) for offset in table["offset"].to_pylist()]


@pytest.mark.parametrize("most", [0, 200, 10**9])
def test_any_stretch_is_given_whatever_is_at_hand(files: Files, most: int) -> None:
    """Within a group, over several and beyond the file, with no more memory than one group or the bound."""
    groups = Groups(files, ["role"], most)
    for low, high in ((0, 0), (1, 1), (3, 77), (90, 400), (19, 21), (0, 198), (7, 6)):
        assert offsets(groups, low, high) == [n for n in range(0, 2 * ROWS, 2) if low <= n <= high]
        assert groups.held_bytes <= max(most, 200)


def test_who_goes_through_reads_each_group_once(files: Files) -> None:
    """However small the steps are; only the columns that were asked for are read."""
    groups = Groups(files, ["role"])
    seen = [n for low in range(0, 2 * ROWS, 3) for n in offsets(groups, low, low + 2)]

    assert seen == list(range(0, 2 * ROWS, 2))
    assert Counted.reads == dict.fromkeys(range(ROWS // GROUP), 1)
    assert next(iter(groups.between(STORED, 0, 0))).column_names == ["offset", "role"]


def test_decisions_read_each_file_of_signals_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made again a few at a time, they do not read the signals again for each few."""
    builder = LogBuilder()
    for number in range(0, 240, 4):
        builder.decided(number)
    files = Files(str(tmp_path))
    archive(Source(MemoryLog(builder.envelopes, builder.policies), "cluster-1", "signalbox"), files)
    monkeypatch.setattr("replay.archived_cases._STEP", 3)
    monkeypatch.setattr("replay.archive_files.pq.ParquetFile", Counted)
    Counted.reads = Counter()
    report = decide_again(archived_evidence(str(tmp_path)), seeds=())
    signals = [s for c in commits_in(files) for s in c.files if s.table == "signals"]

    assert report.reproduced == 60
    assert 0 < Counted.reads.total() <= len(signals)
