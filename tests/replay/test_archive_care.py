"""Care for an archive: merging and dropping keep exactly the rows, killed at any moment, on disk and S3."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from typer.testing import CliRunner

import signalbox
from agents.errors import ConfigError
from replay.archive import archive
from replay.archive_care import Retention, compact, retain, summed
from replay.archive_commits import Commit, Stored, commits_in, counting, put_commit, settle
from replay.archive_files import Files
from replay.comparison import compare
from replay.logged import ArchivedLog
from tests.replay.logs import START, LogBuilder
from tests.replay.places import NewPlace, bucket, new_place, s3
from tests.replay.test_archive import Killed, Mortal, built, expected, naive, rows, source

__all__ = ["new_place", "s3"]
DAY_S = 86_400


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: what a kill leaves is in memory already, and no power is lost here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """A log of answered requests in two partitions."""
    return built(0, 4, 8, 1)


def made(builder: LogBuilder, where: str, *, bodies: bool = False) -> Files:
    """Return an archive of many small commits."""
    files = Files(where)
    archive(source(builder), files, chunk=2, bodies=bodies)
    return files


def all_places(files: Files) -> list[tuple[str, int]]:
    """Return every topic and partition of which the archive has something."""
    return sorted({commit.place for commit in commits_in(files)})


def test_the_rows_and_columns_are_the_same_after_merging(builder: LogBuilder, new_place: NewPlace) -> None:
    """One commit a partition is left, each row is there once with all that it had, and replay agrees."""
    files = made(builder, new_place(), bodies=True)
    before = [b.decisions.to_pylist() for p in range(4) for b in ArchivedLog(files).batches(p)]
    was = compare(ArchivedLog(files), builder.policy)
    merged = sum(compact(files, place, fan=2) for place in all_places(files))
    after = [b.decisions.to_pylist() for p in range(4) for b in ArchivedLog(files).batches(p)]

    assert merged > 8
    assert len(commits_in(files)) == len(all_places(files))
    assert rows(files) == naive(files) == expected(builder)
    assert list(map(repr, chain(*after))) == list(map(repr, chain(*before)))  # NaN equals nothing
    assert compare(ArchivedLog(files), builder.policy) == was
    assert archive(source(builder), files, bodies=True).rows == {}


def test_a_kill_while_merging_keeps_exactly_the_rows(builder: LogBuilder, tmp_path: Path) -> None:
    """At any step of it, and to any reader, no row is doubled and none is missing to who goes by commits."""
    step = 0
    while _killed_while(builder, str(tmp_path / str(step)), step):
        step += 1

    assert step > 8


def test_a_kill_while_merging_on_s3(s3: str) -> None:
    """The same there at some steps: before the commit, between it and the removals, before the names."""
    builder = built(0, 4, 8)
    assert all(_killed_while(builder, bucket(s3), step) for step in (2, 5, 7))


def _killed_while(builder: LogBuilder, where: str, step: int) -> bool:
    """Merge the requests with *step* steps to live, check what is left, and tell whether it was killed."""
    files = made(builder, where)
    place = ("requests", 0)
    try:
        compact(Mortal(where, step), place, fan=2)
        killed = False
    except Killed:
        killed = True
    assert rows(files) == expected(builder)
    assert len(set(naive(files))) == len(naive(files))
    settle(files, all_places(files))
    assert rows(files) == naive(files) == expected(builder)
    compact(files, place, fan=2)
    assert rows(files) == naive(files) == expected(builder)
    return killed


def test_only_neighbours_of_a_size_are_merged_while_a_worker_writes(tmp_path: Path) -> None:
    """Few small commits are left alone; as many as the fan make one, and the target bounds it."""
    builder = built(*range(0, 40, 4))
    files = made(builder, str(tmp_path))
    place = ("requests", 0)
    count = sum(1 for c in commits_in(files, place))

    assert compact(files, place, fan=count + 1) == 0
    assert compact(files, place, fan=count, target=10_000) == count
    assert compact(files, place, fan=1) == 0
    assert rows(files) == expected(builder)


def test_what_is_too_old_is_dropped_and_readers_are_told(builder: LogBuilder, new_place: NewPlace) -> None:
    """Whole files go, of the classes that are named, and a comparison says which days it lacks."""
    files = made(builder, new_place())
    retention = Retention.of({"body": 30, "feedback": 400}, "a file")
    now = START / 1000 + 31 * DAY_S
    erased = summed(retain(files, retention, now))
    left = {row[0] for row in naive(files)}

    assert set(erased) == {"requests", "completions", "results"}
    assert erased["requests"] == {"files": 3, "rows": 4, "from": "2026-09-21", "to": "2026-09-21"}
    assert left == {"signals", "decisions", "feedback"}
    assert rows(files) == naive(files)
    assert ArchivedLog(files).dropped() == erased
    assert compare(ArchivedLog(files), builder.policy).dropped == erased
    assert retain(files, retention, now) == []


def test_a_dropped_range_is_not_archived_again_and_survives_merging(
    builder: LogBuilder, tmp_path: Path
) -> None:
    """Neither a rerun over the log nor a merge brings it back or forgets it."""
    files = made(builder, str(tmp_path))
    erased = summed(retain(files, Retention.of({"requests": 1}, "a file"), START / 1000 + 9 * DAY_S))
    again = archive(source(builder), files)
    for place in all_places(files):
        compact(files, place, fan=2)

    assert again.rows == {}
    assert ArchivedLog(files).dropped() == erased
    assert "requests" not in {row[0] for row in naive(files)}


def test_a_kill_while_dropping_leaves_what_is_listed(builder: LogBuilder, tmp_path: Path) -> None:
    """At any step a commit lists only what can be read; the next run drops the rest."""
    retention, now = Retention.of({"body": 1}, "a file"), START / 1000 + 9 * DAY_S
    step = 0
    while True:
        where = str(tmp_path / str(step))
        files = made(builder, where)
        try:
            retain(Mortal(where, step), retention, now)
            break
        except Killed:
            rows(files)  # raises if a listed file is gone
            retain(files, retention, now)
            settle(files, all_places(files))
            assert {row[0] for row in naive(files)} == {"signals", "decisions", "feedback"}
        step += 3

    assert step > 20


@pytest.mark.parametrize("wrong", [None, {}, {"bodies": 3}, {"body": 0}, {"body": "a week"}, {"body": True}])
def test_days_that_mean_nothing_are_refused(wrong: object) -> None:
    """The error names the file and what can be given."""
    with pytest.raises(ConfigError, match="a file"):
        Retention.of(wrong, "a file")


def test_a_writer_that_outlived_its_turn_doubles_nothing(builder: LogBuilder, tmp_path: Path) -> None:
    """Two commits that overlap count as one after the other, and merging makes them one."""
    files = made(builder, str(tmp_path))
    first, second = commits_in(files, ("requests", 0))[:2]
    late = Files(str(tmp_path / "late"))
    archive(source(builder), late, chunk=3)
    zombie = commits_in(late, ("requests", 0))[0]
    assert first.end < zombie.end
    for stored in zombie.files:
        files.put_hidden(stored.name, late.read_bytes(stored.name))
        files.reveal(stored.name)
    put_commit(files, zombie)

    assert rows(files) == expected(builder)
    compact(files, ("requests", 0), fan=2)
    settle(files, all_places(files))
    assert rows(files) == naive(files) == expected(builder)
    assert second.begin == first.end


def test_overlaps_count_from_where_the_earlier_ends() -> None:
    """A commit within a wider one does not count at all."""

    def commit(begin: int, end: int) -> Commit:
        return Commit("requests", 0, begin, end, (Stored("a", "requests", 1, begin, end - 1),))

    found = counting([commit(0, 10), commit(10, 15), commit(10, 14), commit(14, 18), commit(18, 20)])

    assert [(c.begin, c.end, c.skip) for c in found] == [(0, 10, 0), (10, 15, 0), (14, 18, 15), (18, 20, 0)]


def test_the_commands_say_what_they_did(builder: LogBuilder, tmp_path: Path) -> None:
    """`compact` and `retain` name counts and days; a folder that is no archive exits 2."""
    where = str(tmp_path / "archive")
    files = made(builder, where)
    days = tmp_path / "days.yaml"
    days.write_text("decision: 1\n")
    run = CliRunner().invoke
    one = run(signalbox.app, ["replay", "compact", "--archive", where])
    two = run(signalbox.app, ["replay", "retain", "--archive", where, "--keep", str(days)])
    three = run(signalbox.app, ["replay", "compact", "--archive", str(tmp_path)])

    assert (one.exit_code, two.exit_code, three.exit_code) == (0, 0, 2)
    assert "are left" in one.stdout
    assert "dropped 4 decisions of 2026-09-21 to 2026-09-21" in two.stdout
    assert {row[0] for row in naive(files)} == {"requests", "completions", "results"}
