"""A snapshot of the running topics, for whoever reads logs: `explain`, and anything of replay's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from schemas.codec import SchemaEntry, committed
from schemas.envelope import Envelope
from schemas.topics import CONTROL_POLICY
from streams.log import Log
from streams.policies import Policies


class Snapshot:
    """The topics as they were when `take` returned; memory holds all of it."""

    def __init__(self, counts: Mapping[str, int], policies: Mapping[str, str]) -> None:
        self._counts = counts
        self._policies = policies
        self._records: dict[tuple[str, int], list[Envelope]] = {}

    @staticmethod
    async def take(log: Log, policies: Policies) -> Snapshot:
        """Read every topic of *log* once."""
        counts = {topic: await log.partitions(topic) for topic in await log.topics()}
        snapshot = Snapshot(counts, {policy.hash: policy.normal_form for policy in policies.book})
        for topic, partitions in counts.items():
            if topic == CONTROL_POLICY:
                continue
            start = await log.begins([(topic, p) for p in range(partitions)])
            async for envelope in log.read(start):
                snapshot._records.setdefault((topic, envelope.partition), []).append(envelope)
        return snapshot

    def topics(self) -> Mapping[str, int]:
        """Return topic -> partitions."""
        return self._counts

    def schemas(self) -> Mapping[int, SchemaEntry]:
        """Return the committed schemas."""
        return committed()

    def policies(self) -> Mapping[str, str]:
        """Return hash -> normal form."""
        return self._policies

    def read(self, topic: str, partition: int | None = None) -> Iterator[Envelope]:
        """Iterate over the records of *topic*, partition by partition."""
        numbers = range(self._counts.get(topic, 0)) if partition is None else [partition]
        for p in numbers:
            yield from self._records.get((topic, p), [])
