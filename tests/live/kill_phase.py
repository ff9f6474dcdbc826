"""In which phase a worker is: told from the log and its group's commits, while SIGSTOP holds it still.

`being_assigned`: it has joined its group, but has not taken its partitions over (`starting`: not even that).
Else what it had written is compared with what its group had committed: `produced_uncommitted` if a
record that this life wrote comes from a source record that is not committed, `in_step` if it had only
such source records before it or in hand, `idle` if everything of its partitions was committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import KafkaError

from agents.errors import Unavailable
from agents.retry import DELAYS
from infra.local.workers import Worker
from schemas.topics import (
    DECISIONS,
    REQUESTS,
    attempts_topic,
    jobs_topic,
    logical_name,
    signals_topic,
)
from streams.kafka import KafkaLog
from streams.log import TP
from tests.live.kill_lives import Lives
from tests.live.kill_tail import INBOX, Tail

_ASK_S = 3.0
_SETTLE_S = 0.02
"""For what a worker had handed to its socket to arrive at the broker."""


def sources_of(role: str) -> tuple[str, ...]:
    """Return the topics whose committed offsets say how far *role* is."""
    kind, _, name = role.partition(".")
    if kind == "provider":
        return (jobs_topic(name),)
    return {"admission": (INBOX,), "retry": tuple(DELAYS)}.get(role, (REQUESTS,))


def outputs_of(role: str) -> tuple[str, ...]:
    """Return a topic or two in which *role* shows what it has done."""
    kind, _, name = role.partition(".")
    if kind == "provider":
        return (attempts_topic(name),)
    if kind == "signals":
        return (signals_topic(name),)
    return {"admission": (REQUESTS,), "decision": (DECISIONS,), "dispatch": ()}.get(role, ())


class Groups:
    """What each role's consumer group committed, and who its members are.

    Raises `Unavailable` where the broker does not answer soon: it may be down on purpose.
    """

    def __init__(self, log: KafkaLog, bootstrap: str) -> None:
        self._log = log
        self._bootstrap = bootstrap
        self._admin: AIOKafkaAdminClient | None = None

    async def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            async with asyncio.timeout(_ASK_S):
                if self._admin is None:
                    admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
                    await admin.start()
                    self._admin = admin
                return await getattr(self._admin, method)(*arguments, **named)
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise Unavailable(f"the broker does not answer {method}: {type(error).__name__}") from error

    async def close(self) -> None:
        """Disconnect; the next question connects again."""
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(admin.close(), _ASK_S)

    async def behind(self, role: str) -> Mapping[TP, tuple[int, int]]:
        """Return partition -> (committed, end) of the role's sources."""
        places = [(s, p) for s in sources_of(role) for p in range(await self._log.partitions(s))]
        found = await self._ask("list_consumer_group_offsets", f"{self._log.prefix}.{role}")
        committed = {self._log.logical(tp): max(meta.offset, 0) for tp, meta in found.items()}
        ends = await self.ends(places)
        return {tp: (committed.get(tp, 0), ends[tp]) for tp in places}

    async def ends(self, places: list[TP]) -> Mapping[TP, int]:
        """Return where *places* end."""
        try:
            async with asyncio.timeout(_ASK_S):
                return await self._log.ends(places)
        except TimeoutError as error:
            raise Unavailable("the broker does not tell where partitions end") from error

    async def idle(self, role: str) -> bool:
        """Return whether the role's group committed all of its source."""
        return all(committed >= end for committed, end in (await self.behind(role)).values())

    async def member(self, worker: Worker) -> tuple[str, frozenset[TP]]:
        """Return the member id of *worker* in its group ("" for none) and its partitions."""
        role = worker.spec.role
        responses = await self._ask("describe_consumer_groups", [f"{self._log.prefix}.{role}"])
        members = [member for response in responses for group in response.groups for member in group[5]]
        for member_id, _, _, _, assignment in members:
            # The broker derives a static member's id from its instance name.
            if member_id.startswith(f"{role}-{worker.spec.instance}-"):
                return member_id, self._partitions(assignment)
        return "", frozenset()

    def _partitions(self, assignment: bytes) -> frozenset[TP]:
        if not assignment:
            return frozenset()
        shares = ConsumerProtocol.ASSIGNMENT.decode(assignment).assignment
        prefix = self._log.prefix
        return frozenset((logical_name(prefix, name), p) for name, numbers in shares for p in numbers)


class Looker:
    """Tells the phase of a worker that is being held still."""

    def __init__(self, groups: Groups, tail: Tail, lives: Lives) -> None:
        self.groups = groups
        self._tail = tail
        self._lives = lives
        self._members: dict[int, str] = {}
        """pid -> its member id, once it was seen with partitions; a later life must show another."""

    async def look(self, worker: Worker) -> str:
        """Return the phase; `unknown` where the broker does not answer."""
        try:
            return await self._look(worker)
        except (Unavailable, KafkaError):
            return "unknown"

    async def _look(self, worker: Worker) -> str:
        pid = self._lives.of(worker).pid
        member, partitions = await self.groups.member(worker)
        if not self._lives.assigned(worker):
            earlier = {known for other, known in self._members.items() if other != pid}
            return "being_assigned" if member and member not in earlier else "starting"
        if member:
            self._members[pid] = member
        await asyncio.sleep(_SETTLE_S)
        role = worker.spec.role
        behind = {tp: at for tp, at in (await self.groups.behind(role)).items() if tp in partitions}
        await self._tail.caught_up(await self.groups.ends(await self._tail.places(outputs_of(role))))
        born = int(self._lives.of(worker).born * 1000)
        name = f"{role}-{worker.spec.instance}"
        if any(self._tail.wrote(name, tp, committed, born) for tp, (committed, _) in behind.items()):
            return "produced_uncommitted"
        return "in_step" if any(end > committed for committed, end in behind.values()) else "idle"
