"""What the bench sends and what it measures: a batch as fast as it goes, and an open loop at a fixed rate."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from agents.admission import Admission, read_line
from agents.policy import Policy
from agents.topology import Emit
from infra.local.stack import LocalStack
from infra.local.workers import Worker
from schemas.completion import Result
from schemas.identity import partition_for
from schemas.topics import REQUESTS, RESULTS
from streams.batch import BatchOptions, submit, wait
from streams.log import TP
from streams.runners import World
from tests.live.bench_stack import CLIENT, cpu_us, difference, ends_of_all, messages

_US = 1_000_000


@dataclass(slots=True)
class Measured:
    """One phase: CPU microseconds by role, records by topic, and how long it took."""

    requests: int
    seconds: float
    cpu: Mapping[str, int]
    records: Mapping[str, int]
    failed: int = 0
    load: float = 0.0
    latency_ms: Sequence[float] = ()
    hops_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """What phases need: a client's view of the log, the stack and the workers measured."""

    world: World
    policy: Policy
    stack: LocalStack
    workers: list[Worker]
    sources: Sequence[dict[str, Any]]
    folder: Path

    def lines(self, count: int, mark: str) -> Iterator[bytes]:
        """Iterate over *count* batch lines, the sources over and over under names of their own."""
        for number, source in enumerate(itertools.islice(itertools.cycle(self.sources), count)):
            yield orjson.dumps({**source, "custom_id": f"{mark}-{number}"})

    def used(self) -> dict[str, int]:
        """Return CPU so far by role."""
        return cpu_us(self.stack, self.workers)


async def batch(bench: Bench, count: int, mark: str) -> Measured:
    """Submit *count* requests at once and wait for all results."""
    path = bench.folder / f"{mark}.jsonl"
    path.write_bytes(b"\n".join(bench.lines(count, mark)))
    ends, cpu = await ends_of_all(bench.world.log), bench.used()
    began, mine = time.perf_counter(), time.process_time()
    submission = await submit(bench.world, path, bench.policy, BatchOptions(new_run=True))
    submitting = time.process_time() - mine
    await wait(bench.world, submission)
    seconds = time.perf_counter() - began
    # The ends of attempts and the last commits come after the last result.
    await asyncio.sleep(1.0)
    used = difference(cpu, bench.used()) | {CLIENT: int(submitting * _US)}
    results = [o.result for o in submission.view.outcomes.values()]
    failed = sum(result is None or result.status != 200 for result in results)
    gained = messages(ends, await ends_of_all(bench.world.log))
    return Measured(count, seconds, used, gained, failed, os.getloadavg()[0])


async def idle(bench: Bench, seconds: float) -> Measured:
    """Do nothing for *seconds*."""
    cpu = bench.used()
    await asyncio.sleep(seconds)
    return Measured(0, seconds, difference(cpu, bench.used()), {})


async def open_loop(bench: Bench, rate: float, seconds: float, mark: str) -> Measured:
    """Send at *rate* whether or not answers come; latency counts from when each was due."""
    count = int(rate * seconds)
    ends, cpu = await ends_of_all(bench.world.log), bench.used()
    start = {tp: end for tp, end in ends.items() if tp[0] == RESULTS}
    due: dict[bytes, float] = {}
    answers = asyncio.create_task(_answers(bench, start, count))
    began = time.time()
    partitions = await bench.world.log.partitions(REQUESTS)
    acks = []
    for number, raw in enumerate(bench.lines(count, mark)):
        at = began + number / rate
        await asyncio.sleep(max(0.0, at - time.time()))
        admission = Admission(bench.policy, "default", bench.world.now(), mark)
        request = admission.batch(read_line(number + 1, raw))
        due[request.request_id] = at * 1000
        place = partition_for(request.request_id, partitions)
        acks.append(await bench.world.outbox.send(Emit(REQUESTS, place, request.request_id, request)))
    for ack in acks:
        await ack
    results = await asyncio.wait_for(answers, 60)
    took = time.time() - began
    await asyncio.sleep(1.0)
    used = difference(cpu, bench.used())
    after = await ends_of_all(bench.world.log)
    return Measured(
        count,
        took,
        used,
        messages(ends, after),
        sum(status != 200 for _, status in results.values()),
        os.getloadavg()[0],
        sorted(results[one][0] - at for one, at in due.items()),
        await _hops(bench, ends, due),
    )


async def _answers(bench: Bench, start: Mapping[TP, int], count: int) -> dict[bytes, tuple[float, int]]:
    """Return id -> (the log's time of the first result, its status) of *count* requests."""
    found: dict[bytes, tuple[float, int]] = {}
    async for envelope in bench.world.log.read(start, follow=True):
        result: Result = bench.world.codec.decode_as(Result, envelope.value)
        found.setdefault(result.request_id, (envelope.timestamp, result.status))
        if len(found) == count:
            break
    return found


async def _hops(bench: Bench, ends: Mapping[TP, int], due: Mapping[bytes, float]) -> dict[str, list[float]]:
    """Return how long after it was due a request's first record appeared in each topic."""
    first: dict[str, dict[bytes, float]] = {}
    async for envelope in bench.world.log.read(
        {tp: end for tp, end in ends.items() if "control" not in tp[0]}
    ):
        record = bench.world.codec.decode(envelope.value)
        if record.request_id in due:
            seen = first.setdefault(envelope.topic, {})
            seen.setdefault(record.request_id, envelope.timestamp - due[record.request_id])
    return {topic: sorted(times.values()) for topic, times in first.items()}
