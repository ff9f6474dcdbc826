"""Care for an archive: merging and dropping keep exactly the rows, killed at any moment, on disk and S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from typer.testing import CliRunner

import signalbox
from agents.errors import ConfigError
from replay import archive_care
from replay.archive import archive
from replay.archive_care import FAN, ROW_BYTES, TARGET, Retention, compact, retain, summed
from replay.archive_commits import Commit, Gone, Stored, commits_in, counting, put_commit, settle
from replay.archive_files import Files
from replay.comparison import compare
from replay.logged import ArchivedLog
from schemas.codec import Codec
from schemas.identity import body_digest
from schemas.sealed import Body, seal_plainly
from tests.replay.logs import PARTITIONS, START, LogBuilder
from tests.replay.places import NewPlace, bucket, new_place, s3
from tests.replay.test_archive import Killed, Mortal, built, expected, naive, rows, source

__all__ = ["new_place", "s3"]
DAY_S = 86_400
REQUESTS_0 = ("requests", 0)
LARGE = bytes(300 * 1024)


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


def outlived(builder: LogBuilder, tmp_path: Path) -> Files:
    """Return an archive of which a writer that was not its turn any more has written some requests too."""
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

    assert second.begin == first.end
    return files


def test_a_writer_that_outlived_its_turn_doubles_nothing(builder: LogBuilder, tmp_path: Path) -> None:
    """Two commits that overlap count as one after the other, and merging makes them one."""
    files = outlived(builder, tmp_path)

    assert rows(files) == expected(builder)
    compact(files, ("requests", 0), fan=2)
    settle(files, all_places(files))
    assert rows(files) == naive(files) == expected(builder)


def test_rows_that_two_writers_wrote_are_dropped_once(tmp_path: Path) -> None:
    """What is told to be gone are the rows that were there, by whatever commits they were dropped."""
    builder = built(0, 4, 8, 12, 16)
    files = outlived(builder, tmp_path)
    retention = Retention.of({"requests": 1}, "a file")
    erased = summed(retain(files, retention, START / 1000 + 9 * DAY_S))

    assert erased["requests"]["rows"] == sum(1 for row in expected(builder) if row[0] == "requests")
    assert ArchivedLog(files).dropped() == erased


def heavy(count: int, days: int = 0) -> LogBuilder:
    """Return a log of *count* requests of one partition with large bodies, *days* of them a day apart."""
    builder, codec = LogBuilder(), Codec()
    body = Body(len(LARGE), body_digest("acme", LARGE), seal_plainly(LARGE if not days else b"{}"))
    for number in range(count):
        builder.request(PARTITIONS * number)
    for at, envelope in enumerate(builder.envelopes):
        value = codec.encode(replace(codec.decode(envelope.value), body=body))
        moment = envelope.timestamp + 1000 * DAY_S * min(at, days)
        builder.envelopes[at] = replace(envelope, value=value, timestamp=moment)
    return builder


def tables(files: Files) -> Iterator[Stored]:
    """Yield the files of requests that count."""
    for commit in commits_in(files, REQUESTS_0):
        yield from commit.files


@pytest.mark.parametrize("told", [True, False])
def test_what_is_merged_is_bounded_by_bytes_too(tmp_path: Path, *, told: bool) -> None:
    """Few rows with large bodies are as heavy as many, even if an earlier build did not note their size."""
    builder, files = heavy(10), Files(str(tmp_path))
    archive(source(builder), files, chunk=1, bodies=True)
    if not told:
        for commit in commits_in(files, REQUESTS_0):
            document = json.loads(files.read_bytes(commit.name))
            for each in document["files"]:
                del each["size"]
            files.put_json(commit.name, document)
    compact(files, REQUESTS_0, fan=2, target=1024)
    sizes = [files.parquet(stored.name, []).read().nbytes for stored in tables(files)]

    assert len(sizes) == 4
    assert max(sizes) <= 1024 * ROW_BYTES < sum(sizes)
    assert rows(files) == naive(files) == expected(builder)


def test_rows_are_read_and_written_a_few_large_bodies_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row group is closed once its bodies are many bytes, however few its rows are."""
    monkeypatch.setattr(archive_care, "_GROUP_BYTES", 2 * len(LARGE))
    builder, files = heavy(6), Files(str(tmp_path))
    archive(source(builder), files, chunk=1, bodies=True)
    compact(files, REQUESTS_0, fan=2)
    (stored,) = tables(files)
    told = files.parquet(stored.name, []).metadata

    assert [told.row_group(n).num_rows for n in range(told.num_row_groups)] == [2, 2, 2]
    assert rows(files) == naive(files) == expected(builder)


@pytest.mark.parametrize("weight", [1, 64, 1000])
def test_rows_are_written_a_few_times_only(weight: int) -> None:
    """As chunks come one by one, each is merged with others of its size, not with all that came before."""
    commits: list[Commit] = []
    written = 0

    def commit(begin: int, end: int) -> Commit:
        return Commit("requests", 0, begin, end, (Stored("a", "requests", end - begin, begin, end - 1),))

    for number in range(1024):
        commits.append(commit(number, number + 1))
        while run := archive_care._run(commits, lambda c: weight * c.rows, FAN, TARGET):
            at, wide = commits.index(run[0]), commit(run[0].begin, run[-1].end)
            commits[at : at + len(run)] = [wide]
            written += wide.rows

    assert len(commits) < 32
    assert written <= 5 * 1024


def test_what_is_told_of_dropped_files_does_not_grow(tmp_path: Path) -> None:
    """However many days were dropped, a merged commit has one line of them, with all that they held."""
    builder, files = heavy(30, days=30), Files(str(tmp_path))
    archive(source(builder), files, chunk=4)
    for day in range(3, 40, 4):
        retain(files, Retention.of({"requests": 2}, "a file"), START / 1000 + day * DAY_S)
        compact(files, REQUESTS_0, fan=2)
    (commit,) = commits_in(files, REQUESTS_0)

    assert commit.dropped == (Gone("requests", 30, 30, "2026-09-21", "2026-10-20"),)
    assert len(files.read_bytes(commit.name)) < 600
    assert rows(files) == naive(files) == []


def test_the_lists_of_dropped_files_of_earlier_builds_are_read(builder: LogBuilder, tmp_path: Path) -> None:
    """They named each file; what is told of them is the same."""
    files = made(builder, str(tmp_path))
    first, second = commits_in(files, REQUESTS_0)[:2]
    listed = [{name: getattr(f, name) for name in Stored.__slots__ if name != "size"} for f in first.files]
    other = listed[0] | {"name": "requests/date=2026-09-19/tenant=acme/requests-0-0-1.parquet", "rows": 5}
    document = json.loads(files.read_bytes(first.name)) | {"files": [], "dropped": [*listed, other]}
    files.put_json(first.name, document)
    held = sum(stored.rows for stored in first.files)

    assert second.files
    assert ArchivedLog(files).dropped()["requests"] == {
        "files": len(listed) + 1,
        "rows": held + 5,
        "from": "2026-09-19",
        "to": "2026-09-21",
    }


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
