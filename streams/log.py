"""The port to a partitioned log, which Kafka and an in-memory log both satisfy.

Words: a *position* is the next offset to read; a *committed* offset is where a group resumes;
its *metadata* is text that travels with it. Topics are logical names (`schemas.topics`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.errors import Fenced
from schemas.envelope import Envelope

TP = tuple[str, int]
"""A topic's partition: logical name and number."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed offset and the text that travels with it."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the log put a record, and the log's own timestamp (ms)."""

    offset: int
    timestamp: int


Listener = Callable[[frozenset[TP]], Awaitable[None]]


def fenced(instance: str) -> Fenced:
    """Return the error of a member whose name another process has taken."""
    return Fenced(
        f"another process joined as instance {instance!r}; two workers must not share a name: "
        "give each its own --instance, and start this one again"
    )


class Consumer(Protocol):
    """A member of a consumer group. Never commits by itself."""

    async def start(self, on_assigned: Listener, on_revoked: Listener) -> None:
        """Join; the listeners are awaited before any record of the new assignment is given out."""
        ...

    async def poll(self, timeout_s: float) -> Mapping[TP, Sequence[Envelope]]:
        """Return fetched records by partition, in order; empty after *timeout_s* seconds.

        Raises `agents.errors.Fenced` once another process has joined under this one's name.
        """
        ...

    def reached(self) -> Mapping[TP, int]:
        """Return the next offset of each partition after the last poll, beyond gaps that hold no record."""
        ...

    def seek(self, offsets: Mapping[TP, int]) -> None:
        """Read on from *offsets* rather than from what is committed; to be called by `on_assigned` only."""
        ...

    def pause(self, partitions: frozenset[TP]) -> None:
        """Give out only what is assigned and not in *partitions*; replaces the last call's."""
        ...

    async def commit(self, offsets: Mapping[TP, Commit]) -> None:
        """Commit in one request; raises `agents.errors.Unavailable` if the group moved on."""
        ...

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, Commit]:
        """Return what the group committed; partitions without a commit are left out."""
        ...

    async def stop(self) -> None:
        """Leave."""
        ...


class Log(Protocol):
    """Topics of partitions of records; see the module for the words."""

    prefix: str

    async def start(self) -> None:
        """Connect; raises `agents.errors.Unavailable`."""
        ...

    async def stop(self) -> None:
        """Flush and disconnect."""
        ...

    async def cluster_id(self) -> str:
        """Return the identity of the cluster."""
        ...

    async def partitions(self, topic: str) -> int:
        """Return how many partitions *topic* has; 0 if it does not exist."""
        ...

    async def topics(self) -> Sequence[str]:
        """Return the logical names of the topics of this prefix, sorted."""
        ...

    async def send(
        self,
        place: TP,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Awaitable[Placed]:
        """Hand a record over; the awaitable ends when the log acknowledged it, or raises `Unavailable`."""
        ...

    def consumer(self, group: str, topics: Sequence[str], instance: str) -> Consumer:
        """Return a new member *instance* of *group*."""
        ...

    async def begins(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        """Return the first offset of each partition."""
        ...

    async def ends(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        """Return the end offset (one past the last record) of each partition."""
        ...

    def read(self, start: Mapping[TP, int], *, follow: bool = False) -> AsyncIterator[Envelope]:
        """Iterate over records from *start*, outside any group: to the present ends, or for ever."""
        ...
