"""In which phase a kill hit: told from the log right after it, before the worker is back.

`being_assigned`: the worker served HTTP, but had not taken its partitions over; `starting`: not even that.
Else what it had written is compared with what its group had committed: `produced_uncommitted` if a
record of its output comes from a source record that is not committed, `in_step` if it had only such
source records to read or in hand, `idle` if everything was committed.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient

from infra.local.workers import Worker
from schemas.topics import REQUESTS, full_name, jobs_topic
from streams.kafka import KafkaLog
from streams.log import TP
from tests.live.kill_load import INBOX, Tail


def source_of(role: str) -> str:
    """Return the topic whose committed offsets say how far *role* is."""
    kind, _, name = role.partition(".")
    if kind == "provider":
        return jobs_topic(name)
    return INBOX if role == "admission" else REQUESTS


class Groups:
    """What each role's consumer group committed."""

    def __init__(self, log: KafkaLog, admin: AIOKafkaAdminClient) -> None:
        self._log = log
        self._admin = admin

    async def behind(self, role: str) -> Mapping[int, tuple[int, int]]:
        """Return partition -> (committed, end) of the role's source."""
        source = source_of(role)
        places: list[TP] = [(source, p) for p in range(await self._log.partitions(source))]
        found = await self._admin.list_consumer_group_offsets(f"{self._log.prefix}.{role}")
        committed = {(tp.topic, tp.partition): max(meta.offset, 0) for tp, meta in found.items()}
        ends = await self._log.ends(places)
        name = full_name(self._log.prefix, source)
        return {p: (committed.get((name, p), 0), ends[source, p]) for source, p in places}

    async def idle(self, role: str) -> bool:
        """Return whether the role's group committed all of its source."""
        return all(committed >= end for committed, end in (await self.behind(role)).values())


async def life_of(worker: Worker) -> str:
    """Return how far *worker*'s present life is: starting, being_assigned or ready."""
    if not worker.port_file.exists():
        return "starting"
    return "ready" if await worker.health() else "being_assigned"


async def phase_of(worker: Worker, life: str, groups: Groups, tail: Tail) -> str:
    """Return the phase in which *worker* was killed; *life* is how far it was just before."""
    if life != "ready":
        return life
    role, name = worker.spec.role, f"{worker.spec.role}-{worker.spec.instance}"
    behind = await groups.behind(role)
    own = {p: offset for (who, p), offset in tail.newest.items() if who == name}
    if any(offset >= behind[p][0] for p, offset in own.items()):
        return "produced_uncommitted"
    return "in_step" if any(behind[p][1] > behind[p][0] for p in own) else "idle"
