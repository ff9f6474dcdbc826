"""The same kills over Faust's own consumer and over ours: the first loses events, the second none.

`python -m tests.live.faust_consumer faust|ours ...` is one worker that copies `inbox.json` to `results`,
sixteen records at once; `compare` drives both and kills them at the same seeded moments.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faust
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agents.errors import Unavailable
from agents.topology import Emit, MapStage
from infra.local.kafka import Kafka, KafkaOptions
from schemas.envelope import Envelope
from schemas.topics import RESULTS, full_name
from streams.app import make_world
from streams.host import Fleet, Host
from streams.kafka import KafkaLog, KafkaSettings
from streams.runners.mapping import MapRunner
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from tests.live.kill_tail import INBOX
from tests.live.kill_waiting import until

EVENTS = 300
"""Events of each of two batches."""
KILLS = 3
_PARTITIONS, _CONCURRENCY = 4, 16
_NEVER_S, _LIMIT_S = 3600.0, 240.0
_OVER_S, _STALL_S = 15.0, 60.0
"""So long without a record, and none comes any more: once all is committed, and in any case."""


async def work(value: bytes, *, first_life: bool) -> None:
    """Take some time over *value*; the first event of a partition outlasts its first worker."""
    number = int(value)
    if number < _PARTITIONS:
        await asyncio.sleep(_NEVER_S if first_life else 0.01)
        return
    await asyncio.sleep(1.0 if number % 50 == 0 else 0.005 + number % 7 * 0.005)


class _App(faust.App):
    def _create_directories(self) -> None:
        """Make no folder for tables where the tests run: there are none."""


def faust_app(broker: str, prefix: str, *, first_life: bool) -> faust.App:
    """Return the worker over Faust's own consumer, as shipped; it acknowledges after the broker has."""
    app = _App(
        f"{prefix}.copy",
        broker=f"kafka://{broker}",
        store="memory://",
        topic_partitions=_PARTITIONS,
        web_enabled=False,
        broker_commit_interval=0.2,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        broker_rebalance_timeout=6,
        broker_session_timeout=6,
        broker_heartbeat_interval=2,
        producer_acks=-1,
    )
    source = app.topic(full_name(prefix, INBOX), value_serializer="raw", key_serializer="raw")
    target = app.topic(full_name(prefix, RESULTS), value_serializer="raw", key_serializer="raw")

    async def copy(stream: Any) -> None:
        async for event in stream.events():
            await work(event.value, first_life=first_life)
            await (await target.send(key=event.key, value=event.value))

    app.agent(source, concurrency=_CONCURRENCY)(copy)
    return app


async def ours(broker: str, prefix: str, *, first_life: bool) -> None:
    """Run the worker over our consumer, until killed."""
    log = KafkaLog(KafkaSettings(broker, prefix))
    await log.start()
    telemetry = Telemetry(wall_clock, "copy", quiet=True)

    async def copy(chunk: Sequence[tuple[Envelope, Any]]) -> list[tuple[Emit, ...]]:
        for envelope, _ in chunk:
            value = envelope.value or b""
            await work(value, first_life=first_life)
            await (await log.send((RESULTS, envelope.partition), envelope.key, value))
        return [() for _ in chunk]

    stage = MapStage("copy", "copy", INBOX, None, copy, lambda _e, _r: (), chunk=1, concurrency=_CONCURRENCY)
    host = Host(MapRunner(stage, make_world(log, telemetry, "copy")), log, telemetry, "copy-0")
    await Fleet("copy", [host]).start()
    await asyncio.Event().wait()


class Copier:
    """One kind of worker under kills, over topics of its own."""

    def __init__(self, kind: str, broker: str, seed: int, folder: Path) -> None:
        self.kind = kind
        self.prefix = f"{kind}{seed}"
        self._broker = broker
        self._rng = random.Random(seed)
        self._output = folder / f"{self.prefix}.log"
        self._lives = 0
        self._log = KafkaLog(KafkaSettings(broker, self.prefix))
        self._process: asyncio.subprocess.Process | None = None

    async def lost(self) -> tuple[int, int]:
        """Feed it, kill it, let it finish; return how many events were lost, and how many came twice."""
        await _topics(self._broker, [full_name(self.prefix, topic) for topic in (INBOX, RESULTS)])
        await self._log.start()
        try:
            return await self._run()
        finally:
            await self._kill()
            await self._log.stop()

    async def _run(self) -> tuple[int, int]:
        await self._feed(0)
        await self._spawn()
        # All but the slow first events are through, and what Faust thinks is done has been committed.
        await self._until(EVENTS - _PARTITIONS)
        if self.kind == "faust":
            await self._until_committed()
        await asyncio.sleep(2.0)
        await self._kill()
        await self._feed(EVENTS)
        for _ in range(KILLS - 1):
            await self._spawn()
            await self._until(await self._written() + EVENTS // KILLS)
            await asyncio.sleep(self._rng.random())
            await self._kill()
        await self._spawn()
        await self._until(None)
        seen = [e.value async for e in self._log.read(await self._begins())]
        return 2 * EVENTS - len(set(seen)), len(seen) - len(set(seen))

    async def _feed(self, first: int) -> None:
        acks = [
            await self._log.send((INBOX, n % _PARTITIONS), None, b"%d" % n)
            for n in range(first, first + EVENTS)
        ]
        for ack in acks:
            await ack

    async def _begins(self) -> dict[tuple[str, int], int]:
        return dict(await self._log.begins([(RESULTS, p) for p in range(_PARTITIONS)]))

    async def _written(self) -> int:
        return sum((await self._log.ends([(RESULTS, p) for p in range(_PARTITIONS)])).values())

    async def _distinct(self) -> int:
        return len({e.value async for e in self._log.read(await self._begins())})

    async def _until(self, count: int | None) -> None:
        """Wait for *count* records, None for every event; give up when no more can be expected."""
        began = moved = time.monotonic()
        last = -1
        while time.monotonic() - began < _LIMIT_S:
            written = await self._written()
            if (count is not None and written >= count) or (
                count is None and await self._distinct() == 2 * EVENTS
            ):
                return
            if written != last:
                last, moved = written, time.monotonic()
            still = time.monotonic() - moved
            if still > _STALL_S or (still > _OVER_S and await self._left() == 0):
                return
            await asyncio.sleep(0.1)

    async def _committed(self) -> dict[tuple[str, int], int]:
        consumer = self._log.consumer(f"{self.prefix}.copy", [INBOX], "asker")
        try:
            found = await consumer.committed([(INBOX, p) for p in range(_PARTITIONS)])
        except Unavailable:  # the coordinator is busy with the group
            return {}
        finally:
            await consumer.stop()
        return {place: commit.offset for place, commit in found.items()}

    async def _left(self) -> int:
        """Return how many events the group has not committed."""
        ends = await self._log.ends([(INBOX, p) for p in range(_PARTITIONS)])
        return sum(ends.values()) - sum((await self._committed()).values())

    async def _until_committed(self) -> None:
        """Wait until the first event of a partition is committed, which has not ended."""
        by = time.monotonic() + _LIMIT_S
        await until(self._some_committed, by, 0.2)

    async def _some_committed(self) -> bool:
        return any((await self._committed()).values())

    async def _spawn(self) -> None:
        life = "first" if self._lives == 0 else "later"
        self._lives += 1
        argv = ("-m", "tests.live.faust_consumer", self.kind, self._broker, self.prefix, life)
        with self._output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *argv, stdout=output, stderr=output, start_new_session=True
            )

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _topics(broker: str, names: Sequence[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, _PARTITIONS, 1) for name in names])
    finally:
        await admin.close()


async def losses(folder: Path, seed: int) -> dict[str, tuple[int, int]]:
    """Return kind -> (lost, twice) of both kinds under the same kills on one broker in *folder*."""
    kafka = Kafka(KafkaOptions(folder=folder / "kafka"))
    broker = await kafka.start()
    try:
        copiers = [Copier(kind, broker, seed, folder) for kind in ("faust", "ours")]
        found = await asyncio.gather(*(copier.lost() for copier in copiers))
        return dict(zip(("faust", "ours"), found, strict=True))
    finally:
        await kafka.stop()


async def compare(folder: Path, seed: int) -> int:
    """Print both; exit code 1, as of a run that lost, if Faust's own consumer lost events, else 0."""
    found = await losses(folder, seed)
    for kind, (lost, twice) in found.items():
        sys.stdout.write(f"{kind}: events={2 * EVENTS} kills={KILLS} lost={lost} twice={twice}\n")
    return int(found["faust"][0] > 0)


def main() -> None:
    """Be one worker."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.faust_consumer")
    parser.add_argument("kind", choices=("faust", "ours"))
    parser.add_argument("broker")
    parser.add_argument("prefix")
    parser.add_argument("life", choices=("first", "later"))
    given = parser.parse_args()
    first_life = given.life == "first"
    if given.kind == "ours":
        asyncio.run(ours(given.broker, given.prefix, first_life=first_life))
        return
    app = faust_app(given.broker, given.prefix, first_life=first_life)
    worker = faust.Worker(app, loglevel="error", redirect_stdouts=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
