"""Collect what the claim store holds and no record refers to: requests that were never acknowledged.

Candidates are listed before the log is read, and are older than a grace period in which whoever put
them would have written the record. A reference anywhere in any topic keeps its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from agents.errors import ConfigError
from schemas.claims import mentioned
from streams.clients.claims import ClaimStore, Stored
from streams.log import Log

LEAST_GRACE_S = 600
_MOST_CANDIDATES = 1_000_000
"""So many are looked at in one run; the others are of the next."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a run found: counts and bytes; *collected* is 0 in a dry run."""

    stored: int
    young: int
    referenced: int
    orphans: int
    orphan_bytes: int
    collected: int


async def collect(
    log: Log, store: ClaimStore, *, now: int, grace_s: int, dry_run: bool = False
) -> Collection:
    """Delete the orphans older than *grace_s* seconds at *now* (ms); raises `Unavailable`.

    Raises `ConfigError` for a grace so short that a request could still be on its way.
    """
    if grace_s < LEAST_GRACE_S:
        raise ConfigError(
            f"a grace of {grace_s} s could collect what is on its way; give {LEAST_GRACE_S} or more"
        )
    stored = young = 0
    candidates: dict[str, Stored] = {}
    async for found in store.stored():
        stored += 1
        if found.modified > now - grace_s * 1000:
            young += 1
        elif len(candidates) < _MOST_CANDIDATES:
            candidates[found.reference] = found
    before = len(candidates)
    if candidates:
        await _drop_referenced(log, candidates)
    collected = 0
    for orphan in () if dry_run else candidates.values():
        await store.delete(orphan.reference)
        collected += 1
    size = sum(orphan.size for orphan in candidates.values())
    return Collection(stored, young, before - len(candidates), len(candidates), size, collected)


async def _drop_referenced(log: Log, candidates: dict[str, Stored]) -> None:
    for topic in await log.topics():
        partitions = await log.partitions(topic)
        start = await log.begins([(topic, p) for p in range(partitions)])
        async for envelope in log.read(start):
            for reference in mentioned(envelope.value):
                candidates.pop(reference, None)
