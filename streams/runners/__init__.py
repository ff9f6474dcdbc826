"""Runners: what hosting one kind of stage takes, driven by batches of one partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agents.policy import PolicyBook
from schemas.codec import Codec
from schemas.envelope import Envelope
from streams.claims import ClaimCheck
from streams.letters import DeadLetters
from streams.log import TP, Commit, Log
from streams.outbox import Outbox
from streams.pauses import Pauses
from streams.policies import Policies
from streams.telemetry import Telemetry
from streams.vitals import Head


@dataclass(frozen=True, slots=True)
class World:
    """What every runner needs: log, codec, way out, what operators said, clock, telemetry, claim check."""

    log: Log
    codec: Codec
    outbox: Outbox
    policies: Policies
    pauses: Pauses
    telemetry: Telemetry
    worker: str
    letters: DeadLetters
    claims: ClaimCheck = field(default_factory=ClaimCheck)

    @property
    def book(self) -> PolicyBook:
        """Return the policies read so far."""
        return self.policies.book

    def now(self) -> int:
        """Return the time in ms since the epoch."""
        return self.telemetry.clock() // 1000


@dataclass(slots=True)
class Progress:
    """What a watchdog and a gauge need to know of a runner."""

    in_flight: int = 0
    oldest_since: int | None = None
    waiting_for: str = ""
    done: int = 0
    details: dict[str, int] = field(default_factory=dict)
    heads: Mapping[int, Head] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=dict)
    buffers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Each bounded buffer by name: how much it holds, and how much it may."""


class Group(Protocol):
    """What a runner may ask of its member: a runner with a method `bind` is given it before anything."""

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, Commit]:
        """Return where *partitions* resume; those without a commit may be left out."""
        ...

    def is_suspect(self, tp: TP, offset: int) -> bool:
        """Tell whether the record there may have ended the last process, and must run alone."""
        ...

    async def alone(self, tp: TP, offset: int) -> int:
        """Record that *offset* runs alone from now on; return how many processes it has ended so far.

        Raises `agents.errors.Unavailable` if the partition was taken away.
        """
        ...

    def done(self, tp: TP) -> None:
        """Note that what ran alone has ended well."""
        ...


class Runner(Protocol):
    """Hosts one stage. All methods are called from one event loop."""

    @property
    def group(self) -> str:
        """Return the consumer group, which is the role."""
        ...

    @property
    def topics(self) -> Sequence[str]:
        """Return the logical names of the topics that are read."""
        ...

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Take over *partitions*; committed offsets are where reading resumes."""
        ...

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Let go of *partitions*."""
        ...

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Take in records of one partition; waits while its own bounds are reached."""
        ...

    def reached(self, tp: TP, position: int) -> None:
        """Note, after `process`, that nothing else lies before *position*, whatever gap there is."""
        ...

    def paused(self) -> frozenset[TP]:
        """Return the partitions that must not be read now."""
        ...

    def commits(self) -> Mapping[TP, Commit]:
        """Return what may be committed now, each offset once."""
        ...

    async def tick(self) -> None:
        """Do what time alone asks for; called a few times a second."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Wait until nothing is in flight, or *timeout_s* seconds."""
        ...

    def progress(self) -> Progress:
        """Return how far things are."""
        ...
