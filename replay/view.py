"""What replay reads: a log, wherever it lies. `schemas.logdir.LogDir` is one; so is a list of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from schemas.codec import SchemaEntry, committed
from schemas.envelope import Envelope


class LogView(Protocol):
    """A log that does not change while it is read; topics go by their logical names."""

    def topics(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic that the log has."""
        ...

    def read(self, topic: str, partition: int | None = None) -> Iterable[Envelope]:
        """Return the records of *topic* in offset order, one partition after another, or of one."""
        ...

    def schemas(self) -> Mapping[int, SchemaEntry]:
        """Return the schemas that the records were written with, by id."""
        ...

    def policies(self) -> Mapping[str, str]:
        """Return the normal form of each policy that is in the log, by hash."""
        ...


class MemoryLog:
    """A log of *envelopes* in memory; offsets must ascend within each partition."""

    def __init__(
        self,
        envelopes: Iterable[Envelope],
        policies: Mapping[str, str],
        schemas: Mapping[int, SchemaEntry] | None = None,
    ) -> None:
        self._files: dict[tuple[str, int], list[Envelope]] = {}
        self._policies = dict(policies)
        self._schemas = committed() if schemas is None else schemas
        for envelope in envelopes:
            self._files.setdefault((envelope.topic, envelope.partition), []).append(envelope)

    def topics(self) -> Mapping[str, int]:
        """Return one more than the highest partition that holds a record, by topic."""
        found: dict[str, int] = {}
        for topic, partition in self._files:
            found[topic] = max(found.get(topic, 0), partition + 1)
        return found

    def read(self, topic: str, partition: int | None = None) -> Iterator[Envelope]:
        """Yield the records of *topic*; none if the log has no such topic."""
        for place in sorted(self._files):
            if place[0] == topic and partition in (None, place[1]):
                yield from self._files[place]

    def schemas(self) -> Mapping[int, SchemaEntry]:
        """Return the schemas given, the committed ones by default."""
        return self._schemas

    def policies(self) -> Mapping[str, str]:
        """Return the policies given."""
        return self._policies
