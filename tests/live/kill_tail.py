"""Follows what the roles write: how far, in its own source, each worker is known to have come."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaError

from agents.errors import Unavailable
from schemas.completion import Result
from schemas.envelope import Envelope
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.request import Request
from schemas.retry import Retry
from schemas.topics import DECISIONS, REQUESTS, RESULTS, inbox_topic, jobs_topic
from streams.log import TP
from streams.runners import World
from streams.runs import decoded
from tests.live.kill_waiting import until_true

INBOX = inbox_topic("json")
RETRY = "retry-0"
"""The worker that sends on what waits; what it sends carries the headers of whoever sent it first."""
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
        self._waiting: dict[str, tuple[TP, int]] = {}
        self._wrote: dict[tuple[str, TP], deque[tuple[int, int]]] = defaultdict(
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
            except (Unavailable, KafkaError):
                await asyncio.sleep(_AGAIN_S)

    async def caught_up(self, ends: Mapping[TP, int]) -> None:
        """Return when everything before *ends* was read, or after a while."""
        by = time.monotonic() + _CATCH_UP_S
        await until_true(lambda: all(self._read.get(tp, 0) >= end for tp, end in ends.items()), by, 0.005)

    def wrote(self, worker: str, source: TP, committed: int, born_ms: int) -> bool:
        """Return whether *worker* wrote, since *born_ms*, what comes of *source* from *committed* on."""
        found = self._wrote.get((worker, source), ())
        return any(offset >= committed and at >= born_ms for offset, at in found)

    def _take(self, worker: str, envelope: Envelope, record: Any) -> None:
        at = envelope.timestamp
        match record:
            case AttemptStarted():
                self._job_offsets[record.key] = record.job_offset
            case AttemptEnded():
                source = (jobs_topic(record.provider), envelope.partition)
                self._note(worker, (source, self._job_offsets.get(record.key, -1)), at)
            case Request() if record.request_id in self._placed:
                partition, offset = self._placed[record.request_id]
                self._note(worker, ((INBOX, partition), offset), at)
            case Retry():
                job = decoded(self._world.codec, record.value)
                self._note(RETRY, self._waiting.pop(job.key, None), at)
                self._waiting[job.key] = ((envelope.topic, envelope.partition), envelope.offset)
            case Job() if record.key in self._waiting:
                self._note(RETRY, self._waiting.pop(record.key), at)
            case Result() | Job() if worker.startswith("provider."):
                pass  # the ended attempt says how far it is
            case _ if getattr(record, "origin", None) is not None:
                self._note(worker, ((REQUESTS, record.origin.partition), record.origin.offset), at)

    def _note(self, worker: str, source: tuple[TP, int] | None, at: int) -> None:
        if source is not None:
            self._wrote[worker, source[0]].append((source[1], at))
