"""Faults to plant in a kill run's workers, each of which the run must see: `make sabotages` lists them.

They sit at the seams of the product (its log, its outbox, the runners' protocol), so that what is planted
is a whole fault and not a change of its inside. Only workers have them: load and checker are as always.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import streams.app
import streams.worker
from agents.dispatch import dispatch
from agents.errors import Unavailable
from agents.topology import Emit, emit_for
from schemas.codec import UndecodableError
from schemas.dead_letter import DeadLetter
from schemas.envelope import Envelope
from schemas.job import AttemptStarted
from schemas.topics import DECISIONS, REQUESTS
from streams.kafka import KafkaLog
from streams.kafka_consumer import KafkaConsumer
from streams.log import TP, Commit, Placed
from streams.outbox import Outbox
from streams.runners.joining import JoinRunner

_LATE_S = 1.5
"""Longer than a commit's interval, so that a kill finds what was promised and not yet done."""
_NORTH, _SOUTH = "provider.north", "provider.south"
_PRODUCED = "produced_uncommitted"
_tasks: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A fault: what it does, how to plant it, where kills must go, and what the checker then finds."""

    says: str
    plant: Callable[[], None]
    directed: tuple[tuple[str, str], ...]
    finds: frozenset[str]
    poison_every: int = 0


class EarlyConsumer(KafkaConsumer):
    """Commits what it has fetched, whatever has become of it."""

    async def poll(self, timeout_s: float) -> Mapping[TP, Sequence[Envelope]]:
        """Fetch and commit."""
        found = await super().poll(timeout_s)
        if found:
            with suppress(Unavailable):
                await super().commit({tp: Commit(records[-1].offset + 1) for tp, records in found.items()})
        return found

    async def commit(self, offsets: Mapping[TP, Commit]) -> None:
        """Leave it at that."""


class EarlyLog(KafkaLog):
    """Its consumers commit early."""

    def consumer(self, group: str, topics: Sequence[str], instance: str) -> KafkaConsumer:
        """Return one that does."""
        return EarlyConsumer(self, self._settings, group, topics, instance)


class ForgetfulLog(KafkaLog):
    """Says that a record is written when it has only been put aside."""

    async def send(
        self, place: TP, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Awaitable[Placed]:
        """Promise."""
        _later(super().send(place, key, value, headers))
        return _promised()


class BlindLog(KafkaLog):
    """Finds no ledger to read back."""

    async def read(self, start: Mapping[TP, int], *, follow: bool = False) -> AsyncIterator[Envelope]:
        """Read anything else."""
        if all(topic.startswith("attempts.") for topic, _ in start):
            return
        async for envelope in super().read(start, follow=follow):
            yield envelope


class UncappedJoin(JoinRunner):
    """Commits every derived record that it has read, whether its origin is decided or not."""

    _seen: dict[TP, int]

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Begin with nothing read."""
        self._seen = {}
        await super().assigned(partitions)

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Note how far was read."""
        if tp[0] != REQUESTS:
            self._seen[tp] = batch[-1].offset + 1
        await super().process(tp, batch)

    def commits(self) -> Mapping[TP, Commit]:
        """Break the join's commit rule."""
        return {**super().commits(), **{tp: Commit(offset) for tp, offset in self._seen.items()}}


class EveryDecision(JoinRunner):
    """Acts on every Decision of an origin, where only the first in the log counts."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._acted: set[tuple[int, int]] = set()

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Dispatch what is dispatched already, too."""
        await super().process(tp, batch)
        if self.group == "dispatch" and tp[0] == DECISIONS:
            for envelope in batch:
                await self._again(tp[1], envelope)

    async def _again(self, partition: int, envelope: Envelope) -> None:
        try:
            decision = self._world.codec.decode(envelope.value)
        except UndecodableError:
            return
        place = (partition, decision.origin.offset)
        if place not in self._acted:
            self._acted.add(place)
            return
        async for found in self._world.log.read({(REQUESTS, partition): place[1]}):
            request = self._world.codec.decode(found.value)
            caused = dispatch(request, decision, self._world.now())
            if caused is not None:
                await (await self._world.outbox.send(emit_for(caused)))
            return


class _Outboxes:
    """Ways out that promise what they have not done, in place of the product's methods."""

    send = Outbox.send
    send_dead_letter = Outbox.send_dead_letter

    @staticmethod
    async def late(outbox: Outbox, letter: DeadLetter) -> Placed:
        """Write a dead letter some time after its source may be committed."""
        _later(_Outboxes.send_dead_letter(outbox, letter))
        return Placed(0, letter.died_at)

    @staticmethod
    async def dropped(outbox: Outbox, letter: DeadLetter) -> Placed:
        """Write no dead letter at all."""
        del outbox
        return Placed(0, letter.died_at)

    @staticmethod
    async def unannounced(outbox: Outbox, emit: Emit) -> Awaitable[Placed]:
        """Let a call begin before its start is in the log."""
        if isinstance(emit.record, AttemptStarted):
            _later(_written(outbox, emit))
            return _promised()
        return await _Outboxes.send(outbox, emit)


async def _promised() -> Placed:
    return Placed(0, 0)


async def _written(outbox: Outbox, emit: Emit) -> Placed:
    return await (await _Outboxes.send(outbox, emit))


def _later(work: Awaitable[Any]) -> None:
    async def wait() -> None:
        await asyncio.sleep(_LATE_S)
        await work

    task = asyncio.create_task(wait())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _replace(module: Any, name: str, value: Any) -> Callable[[], None]:
    def plant() -> None:
        assert name in vars(module), f"{module.__name__} has no {name} any more: plant the fault elsewhere"
        setattr(module, name, value)

    return plant


def _faust() -> None:
    from tests.live.kill_faust import FaustHost  # noqa: PLC0415 - Faust's own transport, only here

    _replace(streams.worker, "Host", FaustHost)()


_LOST = frozenset({"lost", "skipped"})
SABOTAGES: Mapping[str, Sabotage] = {
    "faust_consumer": Sabotage(
        "the heuristics role reads through Faust's own consumer, as shipped",
        _faust,
        (("signals.heuristics", "settled"),),
        _LOST,
    ),
    "commit_early": Sabotage(
        "offsets are committed when records are fetched",
        _replace(streams.worker, "KafkaLog", EarlyLog),
        ((_NORTH, _PRODUCED), (_SOUTH, _PRODUCED)),
        _LOST,
    ),
    "produce_not_awaited": Sabotage(
        "records count as written before they are",
        _replace(streams.worker, "KafkaLog", ForgetfulLog),
        (("signals.heuristics", ""), ("dispatch", ""), (_NORTH, "")),
        _LOST | {"unstarted_call"},  # calls begin before their starts are in the log, too
    ),
    "ledger_not_read_back": Sabotage(
        "a provider's worker begins with an empty ledger",
        _replace(streams.worker, "KafkaLog", BlindLog),
        ((_NORTH, _PRODUCED), (_SOUTH, _PRODUCED)),
        frozenset({"called_again", "called_beside"}),
    ),
    "dead_letter_after_commit": Sabotage(
        "a dead letter is written after its source may be committed",
        _replace(Outbox, "send_dead_letter", _Outboxes.late),
        (("admission", ""),),  # what it loses no other role reads; a kill must come within `_LATE_S`
        frozenset({"poison_lost"}),
        poison_every=5,
    ),
    "first_in_log_ignored": Sabotage(
        "dispatch acts on every Decision of a request",
        _replace(streams.app, "JoinRunner", EveryDecision),
        (("dispatch", _PRODUCED), ("decision", _PRODUCED)),
        frozenset({"two_decisions_acted"}),
    ),
    "join_commit_uncapped": Sabotage(
        "a join commits signals of undecided requests",
        _replace(streams.app, "JoinRunner", UncappedJoin),
        (("decision", "starved"),),
        _LOST,
    ),
    "start_not_acknowledged": Sabotage(
        "a provider is called before the start is in the log",
        _replace(Outbox, "send", _Outboxes.unannounced),
        ((_NORTH, "in_step"), (_SOUTH, "in_step")),
        frozenset({"unstarted_call"}),
    ),
    "poison_dropped": Sabotage(
        "records that nobody can read are acknowledged and dropped",
        _replace(Outbox, "send_dead_letter", _Outboxes.dropped),
        (("admission", ""),),
        frozenset({"poison_lost"}),
        poison_every=7,
    ),
}


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}\n" for name in SABOTAGES))
