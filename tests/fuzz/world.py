"""Every role over one log, in one process, with records of ours and spoiled ones on all their topics."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from agents.errors import Unavailable
from agents.policy import Policy
from agents.testing import HashClassifier, ScriptedProvider, policy_of, request_of
from schemas.completion import Result
from schemas.dead_letter import DeadLetter
from schemas.decision import Decision
from schemas.job import Job
from schemas.request import Request
from schemas.retry import Retry
from schemas.signal import SignalSet
from schemas.topics import DEAD_LETTERS, DECISIONS, REQUESTS, RESULTS, jobs_topic, retry_topic, signals_topic
from streams.app import Context, Ports, Tuning, make_world, roles_for, runners_for
from streams.host import Fleet, Host
from streams.letters import LetterLimits
from streams.log import TP, Log, Placed
from streams.policies import publish
from streams.runners import World
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from tests.fuzz.spoiled import spoiled
from tests.live.kill_tail import INBOX
from tests.schemas.records import EXAMPLES

POLICY = """
providers:
  models:
    - {name: large, backend_refs: [{name: north}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python]}
    embeddings:
      - {name: maths, threshold: 0.9, candidates: [solve this equation]}
  decisions:
    - {name: maths, priority: 2, rules: {type: embedding, name: maths}, modelRefs: [{model: large}]}
    - {name: code, priority: 1, rules: {type: keyword, name: code}, modelRefs: [{model: large}]}
    - {name: rest, priority: 0, modelRefs: [{model: large}]}
"""
PARTITIONS = 4
ACCEPTS: Mapping[str, type] = {
    REQUESTS: Request,
    signals_topic("heuristics"): SignalSet,
    signals_topic("embedding"): SignalSet,
    DECISIONS: Decision,
    jobs_topic("north"): Job,
    retry_topic("1s"): Retry,
}
"""The topics of records, besides the inbox, and what each holds."""
TOPICS = (INBOX, *ACCEPTS)
_GOOD = 0.3
"""The share of good records among those put into the inbox and `requests`."""
_STILL_S = 90.0


@dataclass(slots=True)
class Outcome:
    """What became of the records that were put in."""

    good: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    died: list[str] = field(default_factory=list)
    unanswered: int = 0
    unburied: list[str] = field(default_factory=list)
    buried_good: int = 0
    letters: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether no worker died, every bad record is a dead letter and every good one was processed."""
        return not (self.died or self.unanswered or self.unburied or self.buried_good)


class Fuzz:
    """One run over *log*; *behind* tells how many records the groups have not committed."""

    def __init__(self, log: Log, seed: int, behind: Callable[[tuple[str, ...]], Awaitable[int]]) -> None:
        self._log = log
        self._rng = random.Random(seed)
        self._behind = behind
        self._policy: Policy = policy_of(POLICY)
        self._wires = {
            path.stem: bytes.fromhex(json.loads(path.read_text())["wire"]) for path in EXAMPLES.glob("*.json")
        }
        self._bad: dict[tuple[str, int, int], str] = {}
        self._good: dict[tuple[str, int, int], bytes | None] = {}
        self.outcome = Outcome()

    async def run(self, records: int) -> Outcome:
        """Put *records* in, one topic after the other in turn, and judge what became of them."""
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            world = await self._start(stack)
            for start in range(0, records, 2000):
                await self._put(world, start, min(2000, records - start))
            await self._settled()
        await self._judge(world)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _start(self, stack: AsyncExitStack) -> World:
        telemetry = Telemetry(wall_clock, "fuzz", quiet=True)
        telemetry.failed = lambda stage, error: self.outcome.died.append(f"{stage}: {error!r}"[:300])
        limits = LetterLimits(consecutive=0, ratio=0.0)
        world = make_world(self._log, telemetry, "fuzz", limits=limits)
        await publish(world.outbox, self._policy, "fuzz", world.now(), activate=True)
        await world.policies.start()
        stack.push_async_callback(world.policies.stop)
        context = Context(await self._log.cluster_id(), PARTITIONS)
        ports = Ports(HashClassifier(), ScriptedProvider())
        runners = runners_for(roles_for(self._policy), world, ports, Tuning(), {}, context)
        fleet = Fleet("fuzz", [Host(r, self._log, telemetry, f"{r.group}-0", world.pauses) for r in runners])
        await fleet.start()
        stack.push_async_callback(fleet.stop)
        return world

    async def _put(self, world: World, first: int, count: int) -> None:
        sent: list[tuple[tuple[str, int], bytes | None, str, Awaitable[Placed]]] = []
        for number in range(first, first + count):
            topic = TOPICS[number % len(TOPICS)]
            kind, key, value = self._record(world, topic, number)
            place = (topic, self._rng.randrange(PARTITIONS))
            sent.append((place, key, kind, await self._log.send(place, key, value)))
        for (topic, partition), key, kind, ack in sent:
            offset = (await ack).offset
            if kind == "good":
                self._good[topic, partition, offset] = key
            else:
                self._bad[topic, partition, offset] = kind

    def _record(self, world: World, topic: str, number: int) -> tuple[str, bytes | None, bytes | None]:
        """Return how the record is spoiled ("good" if it is not), its key and its value."""
        if topic in {INBOX, REQUESTS} and self._rng.random() < _GOOD:
            if topic == INBOX:
                body = {"model": "auto", "messages": [{"role": "user", "content": f"python {number}"}]}
                line = {"custom_id": f"f{number}", "url": "/v1/chat/completions", "body": body}
                return "good", None, json.dumps(line).encode()
            request = request_of(self._policy, f"g{number}", "python", now=world.now())
            return "good", request.request_id, world.codec.encode(request)
        if topic == INBOX:
            return "noise", None, b"\x07" + self._rng.randbytes(self._rng.randint(0, 200))
        accepted = ACCEPTS[topic]
        wire = self._wires[accepted.__name__]
        others = [w for name, w in self._wires.items() if name != accepted.__name__]
        kind, value = spoiled(self._rng, wire, others, accepted)
        # A client sends no record without key and value.
        keys = (b"", self._rng.randbytes(16)) if value is None else (None, b"", self._rng.randbytes(16))
        return kind, self._rng.choice(keys), value

    async def _settled(self) -> None:
        """Wait until the groups have committed everything, or nothing moves any more."""
        roles = roles_for(self._policy)
        last, moved = -1, time.monotonic()
        while time.monotonic() - moved < _STILL_S and not self.outcome.died:
            with suppress(Unavailable):  # a broker that is busy answers the next time
                behind = await self._behind(roles)
                if behind == 0:
                    return
                if behind != last:
                    last, moved = behind, time.monotonic()
            await asyncio.sleep(0.2)
        self.outcome.died.append(f"{last} records are not committed, and nothing moves any more")

    async def _judge(self, world: World) -> None:
        letters: dict[tuple[str, int, int], set[str]] = defaultdict(set)
        async for letter in self._all(world, DEAD_LETTERS, DeadLetter):
            letters[letter.topic, letter.partition, letter.offset].add(_digest(letter.value))
            self.outcome.letters += 1
        results = {result.request_id async for result in self._all(world, RESULTS, Result)}
        self.outcome.good, self.outcome.bad = len(self._good), Counter(self._bad.values())
        self.outcome.buried_good = sum(place in letters for place in self._good)
        asked = {key for key in self._good.values() if key is not None}
        lines = sum(key is None for key in self._good.values())
        self.outcome.unanswered = len(asked - results) + max(lines - len(results - asked), 0)
        async for topic, partition, offset, value in self._values():
            place = (topic, partition, offset)
            if place in self._bad and _digest(value) not in letters[place]:
                self.outcome.unburied.append(f"{topic}/{partition}/{offset} ({self._bad[place]})")

    async def _values(self) -> Any:
        places: list[TP] = [(topic, p) for topic in TOPICS for p in range(PARTITIONS)]
        async for envelope in self._log.read(await self._log.begins(places)):
            yield envelope.topic, envelope.partition, envelope.offset, envelope.value

    async def _all(self, world: World, topic: str, cls: type) -> Any:
        places = [(topic, p) for p in range(await self._log.partitions(topic))]
        async for envelope in self._log.read(await self._log.begins(places)):
            record = world.codec.decode(envelope.value)
            if isinstance(record, cls):
                yield record


def _digest(value: bytes | None) -> str:
    return hashlib.sha256(b"" if value is None else value).hexdigest() + ("" if value is not None else "-")
