"""Follows what the roles write: how far, in its own source, each worker is known to have come."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.errors import Unavailable
from schemas.completion import Result
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.request import Request
from schemas.topics import DECISIONS, REQUESTS, RESULTS, inbox_topic
from streams.log import TP
from streams.runners import World
from streams.runs import decoded
from tests.live.kill_waiting import until_true

INBOX = inbox_topic("json")
_REMEMBERED = 4000
_CATCH_UP_S = 1.0
_AGAIN_S = 0.5


class Tail:
    """Reads every topic that roles write; *heard* is told of each Result, Decision, ... as it is read."""

    def __init__(self, world: World, heard: Callable[[Any], None]) -> None:
        self._world = world
        self._heard = heard
        self._read: dict[TP, int] = {}
        self._placed: dict[bytes, tuple[int, int]] = {}
        self._job_offsets: dict[str, int] = {}
        self._wrote: dict[tuple[str, int], deque[tuple[int, int]]] = defaultdict(
            lambda: deque(maxlen=_REMEMBERED)
        )

    def place(self, request_id: bytes, partition: int, offset: int) -> None:
        """Note where in the inbox the line lies that admission makes *request_id* of."""
        self._placed[request_id] = (partition, offset)

    async def places(self, topics: Sequence[str]) -> list[TP]:
        """Return every partition of *topics*."""
        log = self._world.log
        return [(topic, p) for topic in topics for p in range(await log.partitions(topic))]

    async def follow(self) -> None:
        """Read on, through outages, until cancelled."""
        log = self._world.log
        wanted = (REQUESTS, RESULTS, DECISIONS, "signals.", "jobs.", "attempts.", "retry.")
        topics = [t for t in await log.topics() if t.startswith(wanted)]
        self._read = dict(await log.begins(await self.places(topics)))
        while True:
            try:
                async for envelope in log.read(self._read, follow=True):
                    record = decoded(self._world.codec, envelope.value)
                    source = dict(envelope.headers).get("ce_source", b"").decode()
                    self._take(source.removeprefix("/signalbox/"), envelope, record)
                    self._read[envelope.topic, envelope.partition] = envelope.offset + 1
                    self._heard(record)
            except Unavailable:
                await asyncio.sleep(_AGAIN_S)

    async def caught_up(self, ends: Mapping[TP, int]) -> None:
        """Return when everything before *ends* was read, or after a while."""
        by = time.monotonic() + _CATCH_UP_S
        await until_true(lambda: all(self._read.get(tp, 0) >= end for tp, end in ends.items()), by, 0.005)

    def wrote(self, worker: str, partition: int, committed: int, born_ms: int) -> bool:
        """Return whether *worker* wrote, since *born_ms*, what comes of a record from *committed* on."""
        found = self._wrote.get((worker, partition), ())
        return any(offset >= committed and at >= born_ms for offset, at in found)

    def _take(self, worker: str, envelope: Any, record: Any) -> None:
        source: tuple[int, int] | None = None
        match record:
            case AttemptStarted():
                self._job_offsets[record.key] = record.job_offset
            case AttemptEnded():
                source = (envelope.partition, self._job_offsets.get(record.key, -1))
            case Request():
                source = self._placed.get(record.request_id)
            case Result() | Job() if worker.startswith("provider."):
                pass  # the ended attempt says how far it is
            case _ if getattr(record, "origin", None) is not None:
                source = (record.origin.partition, record.origin.offset)
        if source is not None:
            self._wrote[worker, source[0]].append((source[1], envelope.timestamp))
