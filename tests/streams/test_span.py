"""A role never runs further ahead of its oldest unfinished record than its span."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agents.topology import Emit, MapStage
from schemas.envelope import Envelope
from schemas.topics import REQUESTS
from streams.app import load_registries, make_world, topic_counts
from streams.memory import MemoryLog
from streams.runners.mapping import MapRunner
from streams.telemetry import Telemetry
from tests.suites.log_suite import until


async def test_one_hung_chunk_stops_the_role_within_its_span() -> None:
    """The other slots go on up to the span and no further; once the chunk ends, all is done."""
    load_registries()
    released = asyncio.Event()
    begun: list[int] = []

    async def step(chunk: Sequence[tuple[Envelope, Any]]) -> list[tuple[Emit, ...]]:
        begun.extend(envelope.offset for envelope, _ in chunk)
        if chunk[0][0].offset == 0:
            await released.wait()
        return [() for _ in chunk]

    stage = MapStage("signal.slow", "signals.slow", REQUESTS, None, step, lambda _e, _r: (), 4, 4, 32)
    log = MemoryLog(topic_counts((), 1), lambda: 0)
    runner = MapRunner(stage, make_world(log, Telemetry(lambda: 0, quiet=True), "w"))
    tp = (REQUESTS, 0)
    await runner.assigned(frozenset({tp}))
    batch = [Envelope(REQUESTS, 0, offset, 0, None, b"x") for offset in range(200)]
    running = asyncio.create_task(runner.process(tp, batch))
    await until(lambda: len(begun) >= 32)
    for _ in range(1000):  # far more turns of the loop than the next chunk would need
        await asyncio.sleep(0)

    assert max(begun) == 31
    assert runner.commits() == {}

    released.set()
    await asyncio.wait_for(running, 60)
    await runner.drain(60)
    assert len(begun) == 200
    assert runner.commits()[tp].offset == 200
