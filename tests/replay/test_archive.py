"""The archive: what of a log is in it, and that a kill at any moment leaves every row in it once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from typer.testing import CliRunner

import signalbox
from agents.errors import InvalidRecord
from replay.archive import Source, archive
from replay.archive_commits import commits_in
from replay.archive_files import Files
from replay.archive_rows import KINDS, table_name
from replay.logged import ArchivedLog
from replay.view import MemoryLog
from schemas.feedback import Feedback
from schemas.identity import Origin
from tests.replay.logs import ANSWER, PROMPT, LogBuilder, kept
from tests.replay.places import NewPlace, bucket, new_place, s3

__all__ = ["new_place", "s3"]
TABLES = tuple(KINDS)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: what a kill leaves is in memory already, and no power is lost here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """A log of answered requests in two partitions, one of them rated."""
    return built(0, 4, 8, 12, 16, 1)


def built(*numbers: int) -> LogBuilder:
    """Return a log of the answered requests of those lines, the last one rated."""
    found = LogBuilder()
    for number in numbers:
        request, decision = found.answered(number)
    rating = Feedback(request.request_id, "user", "rating", 1.0, 0.5, 1_790_000_000_000, decision.origin)
    found.append("feedback", decision.origin.partition, rating)
    return found


def source(builder: LogBuilder, share: float = 1.0) -> Source:
    """Return the first *share* of the log."""
    envelopes = builder.envelopes[: int(len(builder.envelopes) * share)]
    return Source(MemoryLog(envelopes, builder.policies), "cluster-1", "signalbox")


def rows(files: Files) -> list[tuple[object, ...]]:
    """Return the table and place of every row that counts, sorted."""
    found: list[tuple[object, ...]] = []
    for commit in commits_in(files):
        for stored in commit.files:
            table = files.parquet(stored.name, []).read(columns=["topic", "partition", "offset"])
            places = [tuple(row.values()) for row in table.to_pylist()]
            found += [(stored.table, *place) for place in places if place[2] >= commit.skip]
    return sorted(found)


def naive(files: Files) -> list[tuple[object, ...]]:
    """Return the table and place of every row that a reader sees who knows of Parquet folders only."""
    found: list[tuple[object, ...]] = []
    for kind in TABLES:
        where = files.path(kind)
        if any("/_" not in name for name in files.names(kind)):
            table = ds.dataset(where, filesystem=files.fs).to_table(["topic", "partition", "offset"])
            found += [(kind, *row.values()) for row in table.to_pylist()]
    return sorted(found)


def expected(builder: LogBuilder) -> list[tuple[object, ...]]:
    """Return what `rows` must be: an event a row."""
    kinds = [(table_name(e.topic), e) for e in builder.envelopes]
    return sorted((kind, e.topic, e.partition, e.offset) for kind, e in kinds if kind is not None)


class Killed(BaseException):
    """The process is gone."""


class Mortal(Files):
    """Files that are cut off after *left* steps: before an operation, or in the midst of a write."""

    def __init__(self, where: str, left: int) -> None:
        super().__init__(where)
        self.left = left

    def _step(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def write_bytes(self, name: str, data: bytes | memoryview) -> None:
        """Write nothing, half, or all of *data*."""
        self._step()
        super().write_bytes(name, data[: len(data) // 2])
        self._step()
        super().write_bytes(name, data)

    def move(self, name: str, target: str) -> None:
        """Move, or not."""
        self._step()
        super().move(name, target)

    def delete(self, name: str) -> None:
        """Delete, or not."""
        self._step()
        super().delete(name)


def lives(where: str, builder: LogBuilder, left: int) -> bool:
    """Archive with *left* steps to live; tell whether that was enough."""
    try:
        archive(source(builder), Mortal(where, left), chunk=3)
    except Killed:
        return False
    return True


def parquet_below(files: Files) -> set[str]:
    """Return every Parquet file there is, committed or not."""
    return {name for name in files.names() if name.endswith(".parquet")}


def test_every_event_is_a_row_once(builder: LogBuilder, new_place: NewPlace) -> None:
    """Each by its topic, partition and offset, to readers of commits and of folders, on disk and S3."""
    files = Files(new_place())
    archive(source(builder), files, chunk=5)

    assert rows(files) == naive(files) == expected(builder)


def test_a_kill_on_s3_costs_nothing(s3: str) -> None:
    """Before a file, in the midst of a commit and before a name is given: the next run makes it whole."""
    builder = built(0)
    for step in (1, 4, 6):
        where = bucket(s3)
        assert not lives(where, builder, step)
        files = Files(where)
        archive(source(builder), files)
        assert rows(files) == naive(files) == expected(builder)


def test_a_kill_between_any_two_file_operations_costs_nothing(tmp_path: Path) -> None:
    """Killed at each step in turn and run again, every row is there once, and no stray file."""
    builder = built(0, 4, 1)
    step = 0
    while True:
        folder = str(tmp_path / str(step))
        enough = lives(folder, builder, step)
        files = Files(folder)
        for seen in (rows(files), naive(files)):
            assert len(set(seen)) == len(seen)
            assert set(seen) <= set(expected(builder))
        archive(source(builder), files, chunk=4)
        assert rows(files) == naive(files) == expected(builder)
        assert parquet_below(files) == {s.name for c in commits_in(files) for s in c.files}
        if enough:
            break
        step += 1

    assert step > 60


def test_killed_again_and_again_it_still_gets_there(builder: LogBuilder, tmp_path: Path) -> None:
    """Each life adds chunks; none of them is written twice."""
    for _ in range(200):
        if lives(str(tmp_path), builder, 25):
            break

    assert rows(Files(str(tmp_path))) == expected(builder)


def test_a_log_that_grew_adds_its_new_rows_only(builder: LogBuilder, tmp_path: Path) -> None:
    """A part of the log first, all of it later, and a third time to no effect."""
    files = Files(str(tmp_path))
    archive(source(builder, 0.4), files, chunk=4)
    archive(source(builder), files, chunk=4)

    assert rows(files) == expected(builder)
    assert archive(source(builder), files, chunk=4).rows == {}


def test_any_reader_of_parquet_finds_tables_by_date_and_tenant(builder: LogBuilder, tmp_path: Path) -> None:
    """The folders are hive partitions, and a decision has its core and its place in them."""
    archive(source(builder), Files(str(tmp_path)))
    table = ds.dataset(tmp_path / "decisions", partitioning="hive").to_table()

    assert set(table["tenant"].to_pylist()) == {"acme"}
    assert set(table["date"].to_pylist()) == {"2026-09-21"}
    assert {core["policy_hash"] for core in table["core"].to_pylist()} == {builder.policy.hash}
    assert ArchivedLog(Files(str(tmp_path))).policies() == builder.policies


def texts(folder: Path) -> Iterator[str]:
    """Yield all that is in the tables, as text."""
    for kind in TABLES:
        if (folder / kind).exists():
            yield str(ds.dataset(folder / kind, partitioning="hive").to_table().to_pylist())


def test_bodies_are_left_out_unless_asked_for(builder: LogBuilder, tmp_path: Path) -> None:
    """Without --bodies no prompt or answer is in any table; with it both are, as sealed as they were."""
    archive(source(builder), Files(str(tmp_path / "without")))
    archive(source(builder), Files(str(tmp_path / "with")), bodies=True)

    for secret in (PROMPT.decode(), ANSWER.decode()):
        assert not any(secret in text for text in texts(tmp_path / "without"))
        assert any(secret in text for text in texts(tmp_path / "with"))


def test_an_archive_of_another_cluster_is_not_mixed_in(builder: LogBuilder, tmp_path: Path) -> None:
    """Offsets of two clusters mean different records."""
    files = Files(str(tmp_path))
    archive(source(builder), files)
    other = Source(source(builder).view, "cluster-2", "signalbox")

    with pytest.raises(InvalidRecord, match="cluster-1"):
        archive(other, files)


def test_the_command_says_what_it_added(builder: LogBuilder, tmp_path: Path) -> None:
    """And the second time that there is nothing new; a folder that is no log exits 2."""
    kept(str(tmp_path / "log"), builder.envelopes, builder.policies)
    command = ["replay", "archive", "--log", str(tmp_path / "log"), "--out", str(tmp_path / "out")]
    first, second = CliRunner().invoke(signalbox.app, command), CliRunner().invoke(signalbox.app, command)

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "6 decisions" in first.stdout
    assert second.stdout == "nothing new\n"
    assert CliRunner().invoke(signalbox.app, [*command[:3], str(tmp_path), *command[4:]]).exit_code == 2


def test_a_request_that_the_log_lacks_leaves_its_records_to_nobody(tmp_path: Path) -> None:
    """They are kept, under a tenant that says so."""
    builder = LogBuilder()
    builder.append(
        "feedback", 0, Feedback(b"1" * 16, "user", "rating", 1.0, 1.0, 1_790_000_000_000, Origin(0, 9))
    )
    archive(source(builder), Files(str(tmp_path)))
    table = ds.dataset(tmp_path / "feedback", partitioning="hive").to_table()

    assert table["tenant"].to_pylist() == ["(unknown)"]
