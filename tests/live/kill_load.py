"""The load of a kill run: keeps requests in flight from a file, and remembers what became of them.

Half of the lines go through admission in this process, half through the inbox and its admission role.
Now and then something comes along that a careless system would stumble over: a record that nobody can
read, and a second Decision of a request that names another model (as a decision worker might write that
was killed and then saw another signal).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from agents.admission import Admission, read_line
from agents.errors import Refused, Unavailable
from agents.policy import Policy
from agents.topology import Emit, emit_for
from schemas.completion import Result
from schemas.decision import Decision, PlanStep
from schemas.identity import inbox_request_id, partition_for
from schemas.topics import REQUESTS, jobs_topic
from streams.log import TP, Placed
from streams.runners import World
from tests.live.kill_tail import INBOX
from tests.live.kill_waiting import until_true

IN_FLIGHT = 800
"""Requests kept unanswered; a run must never have fewer than 200."""
LINES = 2000
"""Lines of the file; a run that needs more submits it again, as another run."""
_TENANT = "default"
_AT_ONCE = 64
_DECOY_EVERY = 41
POISON_EVERY = 149
_EVEN = 0.2
"""The share of lines that a rule sends to the second provider; the others are drawn."""
_LONG, _LONG_WORDS = 0.05, 200
"""The share of lines whose body goes by claim check."""
_PAUSE_S = 0.05
_GIVE_UP_S = 5.0


def write_lines(path: Path, seed: int) -> None:
    """Write the file that a run submits."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, LINES + 1):
            words = " ".join(rng.choice(("odd", "blue", "sea", "tell", "why")) for _ in range(12))
            words += " even" if rng.random() < _EVEN else ""
            words += " long" * _LONG_WORDS if rng.random() < _LONG else ""
            body = {"model": "auto", "messages": [{"role": "user", "content": words}]}
            line = {"custom_id": f"kill-{number}", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


@dataclass(slots=True)
class Sent:
    """One submitted request; an inbox line has its id once the log has placed it."""

    custom_id: str
    run: str
    request_id: bytes | None = None
    acknowledged: bool = False


@dataclass(slots=True)
class Poison:
    """A record that nobody can read: where it was put, and the digest of its bytes."""

    topic: str
    partition: int
    offset: int
    sha256: str
    acknowledged: bool


@dataclass(slots=True)
class Load:
    """Submits the lines of a file in turn; *place* is told where each inbox line came to lie."""

    world: World
    policy: Policy
    cluster: str
    lines: list[bytes]
    place: Callable[[bytes, int, int], None] = lambda _id, _partition, _offset: None
    target: int = IN_FLIGHT
    poison_every: int = POISON_EVERY
    sent: list[Sent] = field(default_factory=list)
    poisons: list[Poison] = field(default_factory=list)
    decoys: int = 0
    least: int | None = None
    watched: bool = False
    _open: set[bytes] = field(default_factory=set)
    _ended: set[bytes] = field(default_factory=set)
    _seen: set[bytes] = field(default_factory=set)
    _due: list[Decision] = field(default_factory=list)
    _number: int = 0

    @property
    def open(self) -> int:
        """How many acknowledged requests have not ended."""
        return len(self._open)

    @property
    def ended(self) -> int:
        """How many requests have ended."""
        return len(self._ended)

    def hear(self, record: Any) -> None:
        """Take in a record that the log holds."""
        if isinstance(record, Result):
            self._ended.add(record.request_id)
            self._open.discard(record.request_id)
            self._watch()
        elif isinstance(record, Decision) and record.core.plan and record.request_id not in self._seen:
            self._seen.add(record.request_id)
            if len(self._seen) % _DECOY_EVERY == 0:
                self._due.append(record)

    def _watch(self) -> None:
        if self.watched:
            self.least = self.open if self.least is None else min(self.least, self.open)

    async def run(self) -> None:
        """Keep `target` requests open, until cancelled."""
        while True:
            try:
                await self._offer(min(self.target - self.open, _AT_ONCE))
                while self._due:
                    await self._decoy(self._due.pop())
            except (Unavailable, KafkaError):
                await self._reconnect()
            self._watch()
            await asyncio.sleep(_PAUSE_S)

    async def burst(self, count: int) -> None:
        """Submit *count* requests more than `target` asks for."""
        with suppress(Unavailable, KafkaError):
            await self._offer(count)

    async def _offer(self, count: int) -> None:
        asked = []
        for _ in range(max(count, 0)):
            self._number += 1
            with suppress(Refused):  # the claim store is full: the line is not submitted
                asked.append(await self._submit(self._number))
            if self._number % self.poison_every == 0:
                await self._poison(self._number // self.poison_every)
        placed = await asyncio.gather(*(ack for _, ack in asked), return_exceptions=True)
        failed = [one for one in placed if isinstance(one, BaseException)]
        for (sent, _), one in zip(asked, placed, strict=True):
            if isinstance(one, Placed):
                await self._acknowledge(sent, one)
        if failed:  # what was not acknowledged may be in the log all the same, and is judged if it is
            raise failed[0]

    async def _reconnect(self) -> None:
        """Begin anew with the log: a producer whose batches expired has no certain sequence any more."""
        with suppress(Unavailable, KafkaError, TimeoutError, OSError):
            await asyncio.wait_for(self.world.log.stop(), _GIVE_UP_S)
        with suppress(Unavailable, KafkaError, TimeoutError, OSError):
            await asyncio.wait_for(self.world.log.start(), _GIVE_UP_S)

    async def _submit(self, number: int) -> tuple[Sent, Awaitable[Placed]]:
        cycle, index = divmod(number - 1, len(self.lines))
        raw = self.lines[index]
        custom_id, run = f"kill-{index + 1}", f"kill-{cycle}"
        if number % 2:
            admission = Admission(self.policy, _TENANT, self.world.now(), run)
            request = await self.world.claims.check_in(admission.batch(read_line(index + 1, raw)))
            sent = Sent(custom_id, run, request.request_id)
            self.sent.append(sent)
            partition = partition_for(request.request_id, await self.world.log.partitions(REQUESTS))
            return sent, await self.world.outbox.send(Emit(REQUESTS, partition, request.request_id, request))
        sent = Sent(custom_id, "")
        self.sent.append(sent)
        return sent, _in_inbox(await self._send(INBOX, number // 2, raw))

    async def _send(self, topic: str, number: int, value: bytes) -> tuple[TP, Awaitable[Placed]]:
        partition = number % await self.world.log.partitions(topic)
        return (topic, partition), await self.world.log.send((topic, partition), None, value)

    async def _acknowledge(self, sent: Sent, placed: Placed) -> None:
        if isinstance(placed, InInbox):
            sent.request_id = inbox_request_id(self.cluster, INBOX, placed.partition, placed.offset)
            self.place(sent.request_id, placed.partition, placed.offset)
        sent.acknowledged = True
        if sent.request_id is not None and sent.request_id not in self._ended:
            self._open.add(sent.request_id)

    async def _poison(self, number: int) -> None:
        topics = (INBOX, REQUESTS, jobs_topic(self.policy.provider_names[0]))
        value = b"\x07not a record of ours, nor JSON %d" % number
        (topic, partition), ack = await self._send(topics[number % len(topics)], number, value)
        poison = Poison(topic, partition, -1, hashlib.sha256(value).hexdigest(), acknowledged=False)
        self.poisons.append(poison)
        poison.offset = (await ack).offset
        poison.acknowledged = True

    async def _decoy(self, decision: Decision) -> None:
        """Write a second Decision of the same request, for a model that the first one did not choose."""
        first = decision.core.plan[0]
        other = next(p for p in self.policy.provider_names if p != first.provider)
        model = next(m.name for m in self.policy.models.values() if m.provider == other)
        plan = (PlanStep(other, model, first.attempts, first.call_timeout_ms),)
        core = replace(decision.core, chosen=model, plan=plan)
        await (await self.world.outbox.send(emit_for(replace(decision, core=core))))
        self.decoys += 1

    def write(self, out: Path) -> None:
        """Write what was submitted, and what of it nobody can read."""
        rows = [
            {
                "request_id": sent.request_id.hex(),
                "run": sent.run,
                "custom_id": sent.custom_id,
                "acknowledged": sent.acknowledged,
            }
            for sent in self.sent
            if sent.request_id is not None
        ]
        write_rows(out / "submitted.jsonl", rows)
        write_rows(out / "poisons.jsonl", [asdict(poison) for poison in self.poisons])


@dataclass(frozen=True, slots=True)
class InInbox(Placed):
    """A place in the inbox, whose partition belongs to the identity of what lies there."""

    partition: int


async def _in_inbox(sent: tuple[TP, Awaitable[Placed]]) -> Placed:
    placed = await sent[1]
    return InInbox(placed.offset, placed.timestamp, sent[0][1])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


async def until_open(load: Load, count: int, within: float) -> bool:
    """Wait until *count* requests are in flight; False if *within* seconds were not enough."""
    return await until_true(lambda: load.open >= count, time.monotonic() + within, 0.1)
