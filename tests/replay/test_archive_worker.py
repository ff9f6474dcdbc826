"""The archive worker on the in-memory log: whatever ends it, each record of the topics is a row once."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agents.errors import ConfigError
from replay.archive_commits import Identity, commits_in
from replay.archive_files import Files
from replay.archiver import Archiver
from replay.logged import ArchivedLog
from schemas.codec import committed
from schemas.envelope import Envelope
from schemas.topics import DECISIONS, REQUESTS, family, signals_topic
from streams.app import archived_topics, load_registries, make_world, topic_counts
from streams.host import Fleet, Host
from streams.memory import MemoryConsumer, MemoryLog
from streams.runners.archiving import ArchiveLimits, ArchiveRunner
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from tests.replay.logs import PARTITIONS, LogBuilder
from tests.replay.test_archive import Mortal, built, expected, naive, rows

PATIENCE_S = 30.0
GONE = (signals_topic("embedding"), 0)
_ASKED = [(REQUESTS, 0), (signals_topic("heuristics"), 0), GONE, (DECISIONS, 0)]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: what a kill leaves is in memory already, and no power is lost here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def log_of(envelopes: Sequence[Envelope]) -> MemoryLog:
    """Return a log that holds *envelopes* at their own offsets."""
    load_registries()
    log = MemoryLog(topic_counts(["north", "south"], PARTITIONS), lambda: 0)
    append(log, envelopes)
    return log


def append(log: MemoryLog, envelopes: Sequence[Envelope]) -> None:
    """Append *envelopes*, with the gaps before them."""
    for e in envelopes:
        place = (e.topic, e.partition)
        log.skip(place, e.offset - len(log._records[place]))
        log.append(place, e.key, e.value, e.headers, e.timestamp)


class Process:
    """A worker process of the role: its host, and what it must not survive."""

    def __init__(self, log: MemoryLog, files: Files, name: str = "archive-0", chunk: int = 4) -> None:
        self.failures: list[BaseException] = []
        self.telemetry = telemetry = Telemetry(wall_clock, quiet=True)
        telemetry.failed = lambda _stage, error: self.failures.append(error)
        world = make_world(log, telemetry, name)
        identity = Identity("memory", log.prefix)
        self.archiver = Archiver(files, identity, list(committed().values()), chunk=chunk)
        self.runner = ArchiveRunner(self.archiver, archived_topics(), world, ArchiveLimits(flush_s=0.0))
        self.host = Host(self.runner, log, telemetry, name)
        self.fleet = Fleet(f"fleet-{name}", [self.host])

    async def kill(self) -> None:
        """End it without a word."""
        consumer = self.host.consumer._inner
        assert isinstance(consumer, MemoryConsumer)
        consumer.abandon()
        await self.fleet.abandon()


@asynccontextmanager
async def process(log: MemoryLog, files: Files, name: str = "archive-0") -> AsyncIterator[Process]:
    """Run a process that is killed at the end."""
    running = Process(log, files, name)
    await running.fleet.start()
    try:
        yield running
    finally:
        await running.kill()


async def until(happened: Callable[[], bool]) -> None:
    """Wait until *happened*; raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not happened():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.05)


def all_of(builder: LogBuilder, files: Files) -> Callable[[], bool]:
    """Return what tells whether the archive holds the whole log."""
    wanted = expected(builder)
    return lambda: sum(c.rows for c in commits_in(files)) >= len(wanted)


class Doomed(Mortal):
    """Files of a process that has been told to die: it does nothing more once it was killed."""

    @property
    def dead(self) -> bool:
        """Whether it was killed."""
        return self.left == 0


async def test_a_kill_between_any_two_file_operations_costs_nothing(tmp_path: Path) -> None:
    """Killed at every eleventh step in turn, the next process leaves each record in the archive once."""
    builder = built(0, 4, 1)
    step = 0
    while True:
        log, folder = log_of(builder.envelopes), str(tmp_path / str(step))
        doomed = Doomed(folder, step)
        files = Files(folder)
        try:
            async with process(log, doomed):
                await until(lambda d=doomed, f=files: d.dead or all_of(builder, f)())  # type: ignore[misc]
        except BaseException as error:
            if type(error).__name__ != "Killed":
                raise
        enough = not doomed.dead
        for seen in (rows(files), naive(files)):
            assert len(set(seen)) == len(seen)
        async with process(log, files):
            await until(all_of(builder, files))
        assert set(naive(files)) <= set(expected(builder))
        Archiver(files, Identity("memory", log.prefix), []).assigned({c.place for c in commits_in(files)})
        assert rows(files) == naive(files) == expected(builder)
        if enough:
            break
        step += 11

    assert step > 60


class Away(Mortal):
    """Files whose place takes *left* steps, none for five tries, and then all: a disk that was full."""

    refused = 0

    def _step(self) -> None:
        if self.left > 0:
            self.left -= 1
        elif self.refused < 5:
            self.refused += 1
            raise OSError(errno.ENOSPC, "no room (scripted)")


@pytest.mark.parametrize("left", range(7, 60, 7))
async def test_a_place_that_takes_nothing_for_a_while_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Refused at any step, amid a write too, the worker keeps what it has read and tries again."""
    monkeypatch.setattr("streams.runners.archiving._RETRY_S", 0.02)
    builder = built(0, 4, 1)
    log, away = log_of(builder.envelopes), Away(str(tmp_path), left)
    async with process(log, away) as worker:
        await until(all_of(builder, Files(str(tmp_path))))
        await worker.fleet.stop(5.0)

    assert away.refused == 5
    assert worker.failures == []
    assert rows(away) == naive(away) == expected(builder)
    committed_offsets = log._groups[f"{log.prefix}.archive"].commits
    assert committed_offsets[REQUESTS, 0].offset == len(log._records[REQUESTS, 0])


async def test_two_members_share_the_work_and_each_takes_over_from_the_other(tmp_path: Path) -> None:
    """While records flow one joins and one is killed: the rows are those of the topics, each once."""
    builder = built(*range(24))
    half = len(builder.envelopes) // 2
    log, files = log_of(builder.envelopes[:half]), Files(str(tmp_path))
    first = Process(log, files, "archive-0", chunk=64)
    await first.fleet.start()
    for n in range(half, len(builder.envelopes), 20):
        append(log, builder.envelopes[n : n + 20])
        await asyncio.sleep(0.01)
        if n == half + 100:
            second = Process(log, files, "archive-1", chunk=64)
            await second.fleet.start()
    await first.kill()
    await log.rebalance(log._groups[f"{log.prefix}.archive"])
    await until(all_of(builder, files))
    await second.fleet.stop(5.0)

    assert rows(files) == expected(builder)
    assert first.failures == second.failures == []
    assert naive(files) == expected(builder)
    committed_offsets = log._groups[f"{log.prefix}.archive"].commits
    assert committed_offsets[REQUESTS, 0].offset == len(log._records[REQUESTS, 0])


async def test_the_groups_offsets_are_a_report_only(tmp_path: Path) -> None:
    """With an empty archive everything is read again, whatever the group committed."""
    builder = built(0, 1, 2)
    log = log_of(builder.envelopes)
    for name in ("one", "two"):
        files = Files(str(tmp_path / name))
        running = Process(log, files)
        await running.fleet.start()
        await until(all_of(builder, files))
        await running.fleet.stop(5.0)

    assert rows(Files(str(tmp_path / "two"))) == expected(builder)


async def test_a_decision_has_its_signals_beside_it_however_late_they_are_read(tmp_path: Path) -> None:
    """Decisions are read first, then signals, then requests: the rows wait, and lack nothing."""
    builder = built(*range(8))
    order = {DECISIONS: 0, REQUESTS: 2}
    late = sorted(builder.envelopes, key=lambda e: order.get(e.topic, 1))
    log, files = log_of([]), Files(str(tmp_path))
    async with process(log, files):
        for n in range(0, len(late), 5):
            append(log, late[n : n + 5])
            await asyncio.sleep(0.02)
        await until(all_of(builder, files))
    batches = [b for p in range(PARTITIONS) for b in ArchivedLog(files).batches(p)]

    assert sum(len(b.signals) for b in batches) == 8
    assert {len(row) for b in batches for row in b.signals.to_pylist()} == {3}
    assert {b.tenants[0] for b in batches} == {"acme"}


async def test_an_archive_ahead_of_its_topic_is_refused(tmp_path: Path) -> None:
    """A topic that was made anew has other records at the same offsets: the worker ends and says so."""
    files = Files(str(tmp_path))
    builder = built(0, 4, 8)
    async with process(log_of(builder.envelopes), files):
        await until(all_of(builder, files))
    async with process(log_of([]), files) as running:
        await until(lambda: bool(running.failures))

    assert isinstance(running.failures[0], ConfigError)
    assert "made anew" in str(running.failures[0])


async def test_what_the_topic_no_longer_held_is_on_record(tmp_path: Path) -> None:
    """Records that the broker dropped before they were archived are told as a lost stretch."""
    files = Files(str(tmp_path))
    builder = built(0, 4, 8, 12)
    log = log_of(builder.envelopes[: len(builder.envelopes) // 2])
    async with process(log, files):
        await until(lambda: len(rows(files)) == len(expected_of(builder, len(builder.envelopes) // 2)))
    reached = {c.place: c.end for c in commits_in(files)}[REQUESTS, 0]
    append(log, builder.envelopes[len(builder.envelopes) // 2 :])
    last = log.envelopes(REQUESTS)[-1]
    log.trim((REQUESTS, 0), last.offset)
    async with process(log, files) as running:
        await until(lambda: (REQUESTS, REQUESTS, 0, last.offset) in rows(files))
    lost = [c.lost for c in commits_in(files) if c.lost]

    assert counted(running) == last.offset - reached
    assert lost == [((reached, last.offset),)]


def counted(worker: Process) -> float:
    """Return how many lost requests this life of a worker has counted."""
    served = "signalbox_archive_lost_records_total"
    return worker.telemetry.registry.get_sample_value(served, {"topic": REQUESTS}) or 0.0


async def test_a_gap_is_counted_by_the_first_who_finds_it_only(tmp_path: Path) -> None:
    """Where nothing comes after what was dropped either, it is on record; the next owner counts nothing."""
    files, builder = Files(str(tmp_path)), built(0, 4, 8)
    log = log_of(builder.envelopes)
    async with process(log, files):
        await until(all_of(builder, files))
    reached = {c.place: c.end for c in commits_in(files)}[REQUESTS, 0]
    log.skip((REQUESTS, 0), 50)
    log.trim((REQUESTS, 0), reached + 50)
    found = []
    for _ in range(3):
        async with process(log, files) as running:
            await until(running.host.assigned_once.is_set)
            found.append(counted(running))
    lost = [c.lost for c in commits_in(files) if c.lost]

    assert found == [50, 0, 0]
    assert lost == [((reached, reached + 50),)]
    assert rows(files) == naive(files) == expected(builder)


@pytest.mark.parametrize("quiet", [True, False])
async def test_what_is_dropped_while_a_worker_lags_is_on_record(tmp_path: Path, *, quiet: bool) -> None:
    """Retention that passes a running worker makes a gap of what it had not read, and of nothing else."""
    files, builder = Files(str(tmp_path)), built(*range(0, 32, 4))
    half = len(builder.envelopes) // 2
    log = log_of(builder.envelopes[:half])
    requests = len(log.envelopes(REQUESTS))
    async with process(log, files) as running:
        await until(lambda: sum(row[0] == REQUESTS for row in rows(files)) == requests)
        begin = {c.place: c.end for c in commits_in(files)}[REQUESTS, 0]
        # No await in between: the worker sees nothing of these records.
        log.skip((REQUESTS, 0), 50)
        log.trim((REQUESTS, 0), begin + 50)
        if not quiet:
            log.skip((REQUESTS, 0), 7)  # offsets that never were records: no gap
            append(log, [moved(e, begin + 57) for e in builder.envelopes[half:] if e.topic == REQUESTS])
        await until(lambda: counted(running) > 0)
        requests = len([e for e in log.envelopes(REQUESTS) if e.offset >= begin])
        await until(lambda: sum(row[0] == REQUESTS and row[3] > begin for row in rows(files)) == requests)  # type: ignore[operator]
        assert running.failures == []
    async with process(log, files) as after:
        await until(after.host.assigned_once.is_set)
    lost = [c.lost for c in commits_in(files) if c.lost]

    assert (counted(running), counted(after)) == (50, 0)
    assert lost == [((begin, begin + 50),)]
    assert quiet == (requests == 0)


def moved(envelope: Envelope, base: int) -> Envelope:
    """Return *envelope* at an offset beyond *base*."""
    return replace(envelope, offset=base + envelope.offset)


def test_a_gap_is_noted_with_the_chunk_that_it_lies_in(tmp_path: Path) -> None:
    """Not with an earlier one, of which a kill would leave it noted twice or never."""
    builder, files, place = built(*range(0, 24, 4)), Files(str(tmp_path)), (REQUESTS, 0)
    archiver = Archiver(files, Identity("memory", "signalbox"), list(committed().values()), chunk=2)
    archiver.assigned([place])
    asked = [e for e in builder.envelopes if (e.topic, e.partition) == place]
    archiver.take(place, asked[:3])
    archiver.lost(place, asked[4].offset)
    archiver.take(place, asked[4:])
    archiver.flush()
    gap = (asked[2].offset + 1, asked[4].offset)

    assert [c.lost for c in commits_in(files, place)] == [(), (gap,), ()]
    assert archiver.gaps() == [(place, *gap)]
    assert archiver.gaps() == []


@pytest.mark.parametrize("told", ["starts_at", "reached"])
def test_decisions_do_not_wait_for_signals_that_the_topic_no_longer_holds(tmp_path: Path, told: str) -> None:
    """Where those of a role are gone and none comes any more, decisions are archived without them."""
    builder, files = built(0, 4, 8), Files(str(tmp_path))
    archiver = Archiver(files, Identity("memory", "signalbox"), list(committed().values()))
    places = sorted({(e.topic, e.partition) for e in builder.envelopes} & set(_ASKED))
    archiver.assigned(places)
    for place in places:
        those = [e for e in builder.envelopes if (e.topic, e.partition) == place]
        if place == GONE:
            getattr(archiver, told)(place, those[-1].offset + 1)
        else:
            archiver.take(place, those)
    archiver.flush()
    (batch,) = ArchivedLog(files).batches(0)

    assert archiver.waiting == 0
    assert [[e["type"] for e in row] for row in batch.signals.to_pylist()] == [["keyword", "keyword"]] * 3


def expected_of(builder: LogBuilder, count: int) -> list[tuple[object, ...]]:
    """Return what `rows` must be of the first *count* envelopes."""
    part = LogBuilder.__new__(LogBuilder)
    part.envelopes = builder.envelopes[:count]
    return expected(part)


def test_only_topics_of_the_catalogue_are_archived() -> None:
    """Each exists in the catalogue, so that `up` creates it."""
    load_registries()
    assert all(family(topic) for topic in archived_topics())


async def test_records_that_come_long_before_what_they_refer_to_are_paused(tmp_path: Path) -> None:
    """More of them than a worker holds wait for their requests, which are read on meanwhile."""
    builder = built(*range(40))
    files = Files(str(tmp_path / "a"))
    async with process(log_of(builder.envelopes), files) as running:
        await until(all_of(builder, files))

        assert running.failures == []
    assert rows(files) == expected(builder)
