"""The load of a kill run: keeps requests in flight, and remembers what was submitted and what came back."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.admission import Admission, read_line
from agents.policy import Policy
from agents.topology import Emit
from schemas.completion import Result
from schemas.identity import inbox_request_id, partition_for
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.request import Request
from schemas.signal import SignalSet
from schemas.topics import REQUESTS, RESULTS, inbox_topic
from streams.log import TP, Placed
from streams.runners import World
from streams.runs import decoded

INBOX = inbox_topic("json")
IN_FLIGHT = 120
"""Requests kept unanswered; a run must keep 50, and kills take their time to see it."""
_TENANT, _RUN = "default", "kill"


@dataclass(slots=True)
class Sent:
    """One submitted request; an inbox line has its id once the log has placed it."""

    custom_id: str
    run: str
    request_id: bytes | None = None
    acknowledged: bool = False


@dataclass(slots=True)
class Load:
    """Submits lines in turn through admission in this process and through the inbox's admission role."""

    world: World
    policy: Policy
    cluster: str
    seed: int
    sent: list[Sent] = field(default_factory=list)
    ended: set[bytes] = field(default_factory=set)
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """How many acknowledged requests have not ended."""
        return sum(s.acknowledged and s.request_id not in self.ended for s in self.sent)

    async def run(self) -> None:
        """Keep `IN_FLIGHT` requests open, until cancelled."""
        rng = random.Random(self.seed)
        while True:
            missing = IN_FLIGHT - self.open
            acks = [await self._submit(rng) for _ in range(missing)]
            for sent, ack in acks:
                await self._acknowledge(sent, ack)
            await asyncio.sleep(0.05)

    async def _submit(self, rng: random.Random) -> tuple[Sent, Awaitable[Placed]]:
        number = len(self.sent) + 1
        words = " ".join(rng.choice(("even", "odd", "blue", "sea", "tell", "why")) for _ in range(12))
        body = {"model": "auto", "messages": [{"role": "user", "content": words}]}
        custom_id = f"kill-{number}"
        raw = json.dumps({"custom_id": custom_id, "url": "/v1/chat/completions", "body": body}).encode()
        if number % 2:
            admission = Admission(self.policy, _TENANT, self.world.now(), _RUN)
            request = admission.batch(read_line(number, raw))
            sent = Sent(custom_id, _RUN, request.request_id)
            self.sent.append(sent)
            partition = partition_for(request.request_id, await self.world.log.partitions(REQUESTS))
            return sent, await self.world.outbox.send(Emit(REQUESTS, partition, request.request_id, request))
        sent = Sent(custom_id, "")
        self.sent.append(sent)
        partition = number // 2 % await self.world.log.partitions(INBOX)
        return sent, await self.world.log.send((INBOX, partition), None, raw)

    async def _acknowledge(self, sent: Sent, ack: Awaitable[Placed]) -> None:
        placed = await ack
        if sent.request_id is None:
            number = int(sent.custom_id.removeprefix("kill-"))
            partition = number // 2 % await self.world.log.partitions(INBOX)
            sent.request_id = inbox_request_id(self.cluster, INBOX, partition, placed.offset)
            self.places[sent.request_id] = (partition, placed.offset)
        sent.acknowledged = True

    def write(self, path: Path) -> None:
        """Write what was submitted."""
        with path.open("w", encoding="utf-8") as file:
            for sent in self.sent:
                if sent.request_id is not None:
                    row = {
                        "request_id": sent.request_id.hex(),
                        "run": sent.run,
                        "custom_id": sent.custom_id,
                        "acknowledged": sent.acknowledged,
                    }
                    file.write(json.dumps(row) + "\n")


@dataclass(slots=True)
class Tail:
    """Follows what the roles write: how far, in its own source, each worker is known to have come."""

    load: Load
    newest: dict[tuple[str, int], int] = field(default_factory=dict)
    _job_offsets: dict[str, int] = field(default_factory=dict)

    async def follow(self) -> None:
        """Read every topic that roles write, until cancelled."""
        log = self.load.world.log
        wanted = (REQUESTS, RESULTS, "decisions", "signals.", "jobs.", "attempts.")
        topics = [t for t in await log.topics() if t.startswith(wanted)]
        places: list[TP] = [(t, p) for t in topics for p in range(await log.partitions(t))]
        async for envelope in log.read(await log.begins(places), follow=True):
            record = decoded(self.load.world.codec, envelope.value)
            source = dict(envelope.headers).get("ce_source", b"").decode().removeprefix("/signalbox/")
            self._take(source, envelope.partition, record)

    def _take(self, worker: str, partition: int, record: Any) -> None:
        match record:
            case Result():
                self.load.ended.add(record.request_id)
            case AttemptStarted():
                self._job_offsets[record.key] = record.job_offset
            case AttemptEnded() if record.key in self._job_offsets:
                self._wrote(worker, partition, self._job_offsets[record.key])
            case Request() if record.request_id in self.load.places:
                self._wrote(worker, *self.load.places[record.request_id])
            case SignalSet():
                self._wrote(worker, record.origin.partition, record.origin.offset)
            case Job() if worker.startswith("provider."):
                pass  # a further attempt of its own; its ended one says how far it is
            case _ if getattr(record, "origin", None) is not None:
                self._wrote(worker, record.origin.partition, record.origin.offset)
            case _:
                pass

    def _wrote(self, worker: str, partition: int, offset: int) -> None:
        place = (worker, partition)
        self.newest[place] = max(offset, self.newest.get(place, -1))
