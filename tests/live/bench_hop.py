"""Measure one hop, consume and emit with acknowledgements and commits: `python -m tests.live.bench_hop`.

On one broker in one run: a raw aiokafka loop, our host with and without the codec, Faust as shipped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import faust
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agents.topology import Emit, MapStage
from infra.local.kafka import Kafka, KafkaOptions
from schemas.codec import Codec
from schemas.completion import Completion
from schemas.identity import Origin
from schemas.sealed import seal_plainly
from schemas.topics import COMPLETIONS, FEEDBACK, full_name
from streams.app import load_registries, make_world
from streams.host import Fleet, Host
from streams.kafka import KafkaLog, KafkaSettings
from streams.outbox import Outbox
from streams.runners.mapping import MapRunner
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from streams.topics_admin import create_topics

PARTITIONS = 4
SIZE = 800
MODES = ("raw", "codec", "fastavro", "plain", "faust")
_BATCH = 500


def cpu_s() -> float:
    """Return this process's CPU seconds, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Plain:
    """A codec that passes bytes."""

    def check_size(self, data: bytes | None) -> None:
        """Allow any."""

    def decode_as(self, _cls: type, data: bytes | None) -> bytes:
        """Return the bytes."""
        return data or b""

    def encode(self, record: bytes) -> bytes:
        """Return the bytes."""
        return record


def record_of(number: int) -> Completion:
    """Return a record of about `SIZE` bytes in wire format."""
    answer = seal_plainly(b"x" * (SIZE - 210))
    return Completion(
        number.to_bytes(16, "big"), Origin(number % PARTITIONS, number), 0, 0, 0, "north", "large", "large",
        200, "stop", 12, 34, 0.001, "v1", 5.0, 80.0, 1_790_000_000_000, "ab" * 32, answer,
    )  # fmt: skip


async def fill(broker: str, prefix: str, count: int) -> None:
    """Write *count* records with the headers that ours have."""
    log = KafkaLog(KafkaSettings(broker, prefix, linger_ms=5))
    await log.start()
    outbox = Outbox(log, Codec(), "bench")
    acks = [
        await outbox.send(Emit(COMPLETIONS, n % PARTITIONS, n.to_bytes(16, "big"), record_of(n)))
        for n in range(count)
    ]
    for ack in acks:
        await ack
    await log.stop()


async def raw(broker: str, prefix: str, count: int) -> float:
    """Return us of CPU a hop of an aiokafka loop: every output acknowledged, then the batch committed."""
    producer = AIOKafkaProducer(
        bootstrap_servers=broker, linger_ms=2, enable_idempotence=True, max_batch_size=256 * 1024
    )
    source = full_name(prefix, COMPLETIONS)
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=broker,
        group_id="raw",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await producer.start()
    begun = cpu_s()  # joining the group included, as for the others
    await consumer.start()
    done, target = 0, full_name(prefix, FEEDBACK)
    while done < count:
        found = await consumer.getmany(timeout_ms=500, max_records=_BATCH)
        acks = [
            await producer.send(target, m.value, m.key, partition=m.partition, headers=list(m.headers))
            for records in found.values()
            for m in records
        ]
        if acks:
            await asyncio.wait(acks)
            await consumer.commit()
        done += len(acks)
    used = cpu_s() - begun
    await consumer.stop()
    await producer.stop()
    return used / count * 1e6


async def ours(broker: str, prefix: str, count: int, mode: str) -> float:
    """Return us of CPU a hop of our host around a Faust agent."""
    load_registries()
    log = KafkaLog(KafkaSettings(broker, prefix))
    await log.start()
    world = make_world(log, Telemetry(wall_clock, "hop", quiet=True), "hop")
    if mode != "codec":
        other: Any = Plain() if mode == "plain" else Codec()
        world = replace(world, codec=other, outbox=Outbox(log, other, "hop"))
        world.outbox.sent = world.telemetry.sent

    async def copy(chunk: Sequence[tuple[Any, Any]]) -> list[tuple[Emit, ...]]:
        return [(Emit(FEEDBACK, e.partition, e.key, record),) for e, record in chunk]

    stage = MapStage("hop", "hop", COMPLETIONS, Completion, copy, lambda _e, _r: (), 256, 4, 1 << 20)
    runner = MapRunner(stage, world)
    fleet = Fleet("hop", [Host(runner, log, world.telemetry, "hop-0", world.pauses)])
    begun = cpu_s()
    await fleet.start()
    while runner.progress().done < count:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.05)
    used = cpu_s() - begun
    await fleet.stop()
    await log.stop()
    return used / count * 1e6


def shipped(broker: str, prefix: str, count: int) -> None:
    """Run Faust's own consumer and producer; prints us of CPU a hop and ends the process."""
    folder = Path(tempfile.gettempdir()) / "signalbox-hop-faust"
    app = faust.App(
        "shipped", broker=f"kafka://{broker}", store="memory://", web_enabled=False, datadir=str(folder)
    )
    app.conf.topic_disable_leader = True
    app.conf.consumer_auto_offset_reset = "earliest"
    source = app.topic(full_name(prefix, COMPLETIONS), value_serializer="raw", key_serializer="raw")
    target = app.topic(full_name(prefix, FEEDBACK), value_serializer="raw", key_serializer="raw")
    state = {"done": 0, "cpu": 0.0}

    @app.agent(source)
    async def hop(stream: Any) -> None:
        async for event in stream.events():
            if state["done"] == 0:
                state["cpu"] = cpu_s()
            await target.send(key=event.key, value=event.value, headers=event.headers)
            state["done"] += 1
            if state["done"] == count:
                os.write(1, b"%.1f\n" % ((cpu_s() - state["cpu"]) / count * 1e6))
                os._exit(0)

    sys.argv = ["faust", "worker", "-l", "error", "--without-web"]
    app.main()


async def one(mode: str, broker: str, prefix: str, count: int) -> float:
    """Measure *mode* in a process of its own."""
    argv = ("-m", "tests.live.bench_hop", mode, "--broker", broker, "--prefix", prefix, "--count", str(count))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    return float(out.split()[-1])


async def measure(count: int, rounds: int) -> dict[str, list[float]]:
    """Return us of CPU a hop by mode, a number for each round."""
    found: dict[str, list[float]] = {mode: [] for mode in MODES}
    load_registries()
    with tempfile.TemporaryDirectory(prefix="signalbox-hop-") as folder:
        kafka = Kafka(KafkaOptions(folder=Path(folder)))
        broker = await kafka.start()
        try:
            for turn in range(rounds):
                for mode in MODES:
                    prefix = f"hop-{mode}-{turn}"
                    await create_topics(KafkaSettings(broker, prefix), [], partitions=PARTITIONS)
                    await fill(broker, prefix, count)
                    found[mode].append(await one(mode, broker, prefix, count))
                    sys.stderr.write(f"{mode} {found[mode][-1]:.1f} us\n")
        finally:
            await kafka.stop()
    return found


def report(found: dict[str, list[float]], count: int, load: tuple[float, float, float]) -> str:
    """Return the results page."""
    best = {mode: min(values) for mode, values in found.items()}
    names = {
        "raw": "raw aiokafka loop, acknowledged and committed",
        "codec": "our host, a Faust agent: Avro, headers and metrics included",
        "fastavro": "the same with fastavro, to which `SIGNALBOX_CODEC` falls back",
        "plain": "the same without the codec",
        "faust": "Faust as shipped (its producer not awaited, its commits not safe)",
    }
    rows = "\n".join(
        f"| {names[mode]} | {best[mode]:.1f} | {best[mode] / best['raw']:.2f} |" for mode in MODES
    )
    words = f"{len(record_bytes())} bytes, {count} records, best of {len(found['raw'])} rounds"
    return f"""# What one hop costs

`make hop`: CPU of the consuming process, user and system, consume and emit; {words}.
Every mode is a process of its own, in turn on one broker on the same machine.
Load average at the end: {load[0]:.1f}.

| hop | CPU us | of raw |
|---|---|---|
{rows}
"""


def record_bytes() -> bytes:
    """Return a record of the measure in wire format."""
    return Codec().encode(record_of(1))


def main() -> int:
    """Measure all modes, or the one that is named; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.bench_hop", description=__doc__)
    parser.add_argument("mode", nargs="?", choices=MODES)
    parser.add_argument("--broker")
    parser.add_argument("--prefix", default="hop")
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the page goes, and the numbers beside it")
    given = parser.parse_args()
    place = (given.broker, given.prefix, given.count)
    if given.mode == "faust":
        shipped(*place)
    elif given.mode == "raw":
        sys.stdout.write(f"{asyncio.run(raw(*place)):.1f}\n")
    elif given.mode is not None:
        sys.stdout.write(f"{asyncio.run(ours(*place, given.mode)):.1f}\n")
    else:
        found = asyncio.run(measure(given.count, given.rounds))
        page = report(found, given.count, os.getloadavg())
        sys.stdout.write(page)
        if given.out is not None:
            given.out.write_text(page, encoding="utf-8")
            given.out.with_suffix(".json").write_bytes(orjson.dumps(found) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
