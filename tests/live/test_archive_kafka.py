"""Archive workers on a real broker, killed and rebalanced while records flow: each record is a row once."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra.local.kafka import Kafka, KafkaOptions
from replay.archive_commits import commits_in
from replay.archive_files import Files
from replay.comparison import compare
from replay.logged import ArchivedLog, KeptLog
from replay.view import MemoryLog as View
from streams.app import archived_topics, load_registries
from streams.kafka import KafkaLog, KafkaSettings
from streams.topics_admin import create_topics
from tests.architecture.repository import ROOT
from tests.replay.logs import PARTITIONS, LogBuilder
from tests.replay.test_archive import naive, rows

pytestmark = [pytest.mark.live, pytest.mark.timeout(900), pytest.mark.usefixtures("kafka_jars")]

PREFIX = "archived"
REQUESTS_SENT, KILLS = 400, 5
PATIENCE_S = 150.0


class Dense(LogBuilder):
    """A log whose offsets have no gaps, as a new topic's have none."""

    def append(self, topic: str, partition: int, record: object, key: bytes = b"") -> int:
        """Append *record* at the next offset."""
        offset = super().append(topic, partition, record, key)
        self._next[topic, partition] = offset + 1
        return offset


class Member:
    """A worker process, which can be killed and comes back under its name."""

    def __init__(self, broker: str, folder: Path, instance: int) -> None:
        self._argv = ["-m", "signalbox", "worker", "archive", "--instance", str(instance)]
        self._argv += ["--broker", broker, "--archive", str(folder / "archive")]
        self._env = {
            "SIGNALBOX_PREFIX": PREFIX,
            "SIGNALBOX_ARCHIVE_FLUSH_S": "0.3",
            "SIGNALBOX_ARCHIVE_CARE_S": "2",
        }
        self._log = folder / f"worker-{instance}.log"
        self._seen = 0
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as out:
            self._seen = self._log.read_text().count('"PartitionsAssigned"')
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._argv,
                cwd=ROOT,
                env={**os.environ, **self._env},
                stdout=out,
                stderr=out,
            )

    async def ready(self) -> None:
        """Wait until this life of it has been assigned something, or nothing."""
        async with asyncio.timeout(PATIENCE_S):
            while self._log.read_text().count('"PartitionsAssigned"') <= self._seen:
                assert self.process is not None
                assert self.process.returncode is None
                await asyncio.sleep(0.2)

    async def end(self, *, kill: bool) -> int:
        """Kill it, or ask it to stop, and return its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            (self.process.kill if kill else self.process.terminate)()
        return await asyncio.wait_for(self.process.wait(), 60)


@pytest_asyncio.fixture
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a real broker."""
    kafka = Kafka(KafkaOptions(folder=tmp_path_factory.mktemp("kafka")))
    yield await kafka.start()
    await kafka.stop()


async def until_archived(log: KafkaLog, files: Files, members: list[Member]) -> None:
    """Wait until every topic is archived up to its end; raises TimeoutError, or if a worker ended."""
    places = [(t, p) for t in archived_topics() for p in range(await log.partitions(t))]
    ends = {place: end for place, end in (await log.ends(places)).items() if end}
    async with asyncio.timeout(PATIENCE_S):
        while {c.place: c.end for c in commits_in(files)} != ends:
            assert all(m.process is not None and m.process.returncode is None for m in members)
            await asyncio.sleep(0.5)


async def test_killed_and_rebalanced_every_record_is_archived_once(broker: str, tmp_path: Path) -> None:
    """Two members, SIGKILLs at random moments, one absence beyond the session: rows equal records."""
    load_registries()
    settings = KafkaSettings(broker, prefix=PREFIX)
    await create_topics(settings, ["north", "south"], partitions=PARTITIONS)
    log = KafkaLog(settings)
    await log.start()
    builder = Dense()
    for number in range(REQUESTS_SENT):
        builder.answered(number)
    wanted = [e for e in builder.envelopes if e.topic in archived_topics()]
    files, draw = Files(str(tmp_path / "archive")), random.Random(5)
    members = [Member(broker, tmp_path, n) for n in (0, 1)]
    for member in members:
        await member.start()
    share = -(-len(wanted) // (KILLS + 1))

    async def flow(number: int) -> None:
        """Send a share of the records over two seconds."""
        part = wanted[number * share : (number + 1) * share]
        for n in range(0, len(part), 25):
            sent = [
                await log.send((e.topic, e.partition), e.key, e.value, e.headers) for e in part[n : n + 25]
            ]
            await asyncio.gather(*sent)
            await asyncio.sleep(50 / share)

    try:
        for n in range(KILLS):
            victim = members[n % 2]
            await victim.ready()
            sending = asyncio.create_task(flow(n))
            await asyncio.sleep(draw.uniform(0.2, 2.0))
            await victim.end(kill=True)
            await sending
            if n == KILLS // 2:
                await asyncio.sleep(13)  # beyond the session: the other one takes its partitions over
            await victim.start()
        await flow(KILLS)
        await until_archived(log, files, members)
        codes = [await member.end(kill=False) for member in members]
        places = [(t, p) for t in archived_topics() for p in range(await log.partitions(t))]
        records = [e async for e in log.read(dict(await log.begins(places)))]
    finally:
        for member in members:
            await member.end(kill=True)
        await log.stop()
    found = rows(files)

    assert codes == [0, 0]
    assert len(found) == len(wanted)
    assert sorted(row[1:] for row in found) == sorted((e.topic, e.partition, e.offset) for e in records)
    assert naive(files) == found
    ordered = sorted(records, key=lambda e: (e.topic, e.partition, e.offset))
    kept = compare(KeptLog(View(ordered, builder.policies)), builder.policy)
    archived = compare(ArchivedLog(files), builder.policy)
    assert archived.decisions == kept.decisions == REQUESTS_SENT
    assert (archived.cells.keys(), archived.changed, archived.unknown) == (kept.cells.keys(), 0, 0)
