"""An archive that is read while a worker merges it, sweeps it and drops from it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import signalbox
from replay import archive_files
from replay.archive import Source, archive
from replay.archive_care import KEEPING, Keeping, Retention, compact, retain, sweep
from replay.archive_commits import Identity, commits_in, settle
from replay.archive_files import Files, TakenAway, is_aside
from replay.archived_cases import archived_evidence
from replay.archiver import Archiver
from replay.cases import Case
from replay.comparison import compare
from replay.logged import ArchivedLog
from replay.view import MemoryLog
from streams.settings import wall_clock
from tests.replay.logs import PARTITIONS, START, LogBuilder
from tests.replay.places import NewPlace, bucket, new_place, s3
from tests.replay.test_archive import Killed, Mortal, expected, naive, rows

__all__ = ["new_place", "s3"]
DAY_S = 86_400
HOUR_S = 3600.0
REQUESTS_0 = ("requests", 0)
OLD = Retention.of({"requests": 1, "decisions": 1}, "a file")
LATER = START / 1000 + 9 * DAY_S


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: what a kill leaves is in memory already, and no power is lost here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """A log of answered requests in two partitions."""
    found = LogBuilder()
    for number in (0, 4, 8, 12, 1, 5):
        found.answered(number)
    return found


def made(builder: LogBuilder, where: str) -> Files:
    """Return an archive of many small commits, with bodies."""
    files = Files(where)
    source = Source(MemoryLog(builder.envelopes, builder.policies), "cluster-1", "signalbox")
    archive(source, files, chunk=2, bodies=True)
    return files


def merged(files: Files) -> None:
    """Merge whatever can be."""
    for place in sorted({commit.place for commit in commits_in(files)}):
        compact(files, place, fan=2)


def cared(files: Files, now: float, keeping: Keeping = KEEPING) -> None:
    """Let a worker that owns every partition care for the files."""
    worker = Archiver(files, Identity("cluster-1", "signalbox", bodies=True), [], keeping)
    worker.assigned(sorted({commit.place for commit in commits_in(files)}), before=0.0)
    worker.care(now)


def everything(log: ArchivedLog, between: Callable[[], None]) -> Iterator[tuple[object, ...]]:
    """Yield the place of each row that *log* gives out, and call *between* after every piece of it."""
    for partition in range(PARTITIONS):
        kinds = {
            "decisions": (batch.decisions for batch in log.batches(partition)),
            "requests": log.requests(partition),
            "completions": (part.load() for part in log.completions(partition)),
        }
        for name, tables in kinds.items():
            for table in tables:
                yield from ((name, name, partition, offset) for offset in table["offset"].to_pylist())
                between()


def test_a_read_goes_on_while_files_are_merged_and_swept(builder: LogBuilder, tmp_path: Path) -> None:
    """What was listed is read to its end: no row is missing or doubled, and what comes of it is the same."""
    where = str(tmp_path)
    files = made(builder, where)
    log, was = ArchivedLog(files), rows(files)
    cases = iter(archived_evidence(where).cases)
    offsets = [o for table in log.requests(0) for o in table["offset"].to_pylist()]
    bodies = list(log.bodied(0, offsets))
    answer = compare(log, builder.policy)

    def work() -> None:
        if not any(is_aside(name) for name in files.names()):
            merged(files)
        cared(files, wall_clock() / 1e6)

    first = next(cases)
    seen = list(everything(log, work))
    places = {commit.place for commit in commits_in(files)}

    assert sorted(seen) == [row for row in was if row[0] in {"decisions", "requests", "completions"}]
    assert len(places) == len(commits_in(files)) < len(log._commits)
    assert any(is_aside(name) for name in files.names())
    assert [case.missing for case in (first, *cases) if isinstance(case, Case)] == [()] * 6
    assert list(log.bodied(0, offsets)) == bodies
    assert compare(log, builder.policy) == compare(ArchivedLog(files), builder.policy) == answer
    assert rows(files) == naive(files) == expected(builder)


def test_a_file_is_read_on_where_it_gets_another_name_between_its_groups(
    builder: LogBuilder, new_place: NewPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened long ago, the next group is found where the file went, on S3 too."""
    monkeypatch.setattr(archive_files, "GROUP", 3)
    files = Files(new_place())
    archive(Source(MemoryLog(builder.envelopes, builder.policies), "cluster-1", "signalbox"), files)
    stored = next(s for c in commits_in(files, ("requests", 0)) for s in c.files)
    whole = files.parquet(stored.name, []).read(["offset"])["offset"].to_pylist()
    file = files.parquet(stored.name, [])
    seen = file.read_row_group(0, ["offset"])["offset"].to_pylist()
    files.set_aside(stored.name)
    for number in range(1, file.num_row_groups):
        seen += file.read_row_group(number, ["offset"])["offset"].to_pylist()

    assert file.num_row_groups == 2
    assert seen == whole


def test_what_was_merged_on_s3_stays_for_who_listed_it(s3: str) -> None:
    """As on a disk: set aside as the merged file counts, there for its time, and gone after it."""
    found = LogBuilder()
    for number in (0, 4, 8):
        found.answered(number)
    files = made(found, bucket(s3))
    log = ArchivedLog(files)
    was = [table["offset"].to_pylist() for table in log.requests(0)]
    assert compact(files, REQUESTS_0, fan=2) == len(was) > 1
    assert sweep(files, wall_clock() / 1e6 - HOUR_S) == 0

    assert [table["offset"].to_pylist() for table in log.requests(0)] == was
    assert rows(files) == naive(files) == expected(found)
    assert sweep(files, math.inf) == len(was)
    with pytest.raises(TakenAway):
        list(log.requests(0))


def test_what_was_merged_goes_after_its_time(builder: LogBuilder, tmp_path: Path) -> None:
    """Not before; and who is still at it is told so, and what to do."""
    files = made(builder, str(tmp_path))
    log, start = ArchivedLog(files), wall_clock() / 1e6
    merged(files)
    kept = [name for name in files.names() if is_aside(name)]
    cared(files, start + HOUR_S - 60)

    assert [name for name in files.names() if is_aside(name)] == kept != []
    cared(files, start + HOUR_S + 60)
    assert not any(is_aside(name) for name in files.names())
    assert rows(files) == naive(files) == expected(builder)
    with pytest.raises(TakenAway, match=r"while the archive was read.*run the command again"):
        list(everything(log, lambda: None))


def test_a_file_counts_as_merged_from_when_it_was(builder: LogBuilder, tmp_path: Path) -> None:
    """However long ago it was written."""
    files = made(builder, str(tmp_path))
    for name in files.names():
        os.utime(files.path(name), (1.0, 1.0))
    merged(files)

    assert sweep(files, wall_clock() / 1e6 - HOUR_S) == 0
    assert sweep(files, math.inf) > 0


def test_what_retention_drops_goes_at_once_set_aside_or_not(builder: LogBuilder, tmp_path: Path) -> None:
    """No reader is waited for: it is told that what it had listed is gone."""
    files = made(builder, str(tmp_path))
    log = ArchivedLog(files)
    merged(files)
    cared(files, LATER, Keeping(OLD, merged_s=math.inf))
    left = {name.partition("/")[0] for name in files.names() if not name.startswith("_")}

    assert left == {"completions", "results", "signals", "manifest.json"}
    assert any(is_aside(name) for name in files.names("completions"))
    with pytest.raises(TakenAway, match="retention dropped it"):
        list(log.requests(0))


def test_a_kill_while_merging_leaves_readers_what_they_listed(tmp_path: Path) -> None:
    """Whatever step it was killed at, the next owner of the partition keeps that for them, and no more."""
    found = LogBuilder()
    for number in (0, 4, 8):
        found.answered(number)
    step, killed = 0, True
    while killed:
        files = made(found, str(tmp_path / str(step)))
        log = ArchivedLog(files)
        killed = _dies(files.root, step, lambda mortal: compact(mortal, REQUESTS_0, fan=2))
        settle(files, [REQUESTS_0])
        assert [o for table in log.requests(0) for o in table["offset"].to_pylist()] == [
            row[3] for row in expected(found) if row[0] == "requests"
        ]
        assert rows(files) == naive(files) == expected(found)
        sweep(files, math.inf)
        counted = {stored.name for commit in commits_in(files) for stored in commit.files}
        assert {name for name in files.names() if ".parquet" in name} == counted
        step += 1

    assert step > 6


def test_a_kill_while_dropping_keeps_nothing_for_readers(tmp_path: Path) -> None:
    """A file whose commit says already that it was dropped is erased once the partition has an owner."""
    found = LogBuilder()
    for number in (0, 4, 8):
        found.answered(number)
    for step in (3, 4, 7):
        files = made(found, str(tmp_path / str(step)))
        assert _dies(files.root, step, lambda mortal: retain(mortal, OLD, LATER, [REQUESTS_0]))
        settle(files, [REQUESTS_0])
        counted = {stored.name for commit in commits_in(files, REQUESTS_0) for stored in commit.files}
        assert set(files.names("requests")) == counted


def test_the_command_keeps_what_it_merged_for_as_long_as_it_is_told(
    builder: LogBuilder, tmp_path: Path
) -> None:
    """An hour by default; at 0 seconds it is gone at once."""
    files, command = made(builder, str(tmp_path)), ["replay", "compact", "--archive", str(tmp_path)]
    first = CliRunner().invoke(signalbox.app, command)
    kept = [name for name in files.names() if is_aside(name)]
    second = CliRunner().invoke(signalbox.app, [*command, "--merged-s", "0"])

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert len(kept) > 8
    assert not any(is_aside(name) for name in files.names())


def _dies(where: str, step: int, work: Callable[[Files], object]) -> bool:
    """Tell whether *work* on the files there was killed, with *step* steps to live."""
    try:
        work(Mortal(where, step))
    except Killed:
        return True
    return False
