"""Host the archive: what is read goes to an archive, whose own positions say where reading goes on.

The group's offsets are committed for those who watch lag; nothing is resumed from them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agents.errors import ConfigError
from schemas.envelope import Envelope
from streams.log import TP, Commit
from streams.runners import Progress, World

_RETRY_S = 0.5
_GRACE_S = 600
"""A writer that lost its partitions is granted so long to notice, before what it left is removed."""


class Archive(Protocol):
    """What keeps records for ever; of each place at most one process writes. May raise `OSError`."""

    def assigned(self, places: Iterable[TP], *, before: float | None = None) -> Mapping[TP, int]:
        """Take *places* over and return the offset at which each goes on."""
        ...

    def revoked(self, places: Iterable[TP]) -> None:
        """Let go of *places*."""
        ...

    def starts_at(self, place: TP, offset: int) -> None:
        """Note that the topic holds nothing before *offset*; a flush makes durable what that says is lost."""
        ...

    def lost(self, place: TP, offset: int) -> None:
        """Note that of *place* the topic dropped what was not taken yet and lies before *offset*."""
        ...

    def gaps(self) -> Sequence[tuple[TP, int, int]]:
        """Return what was lost and is durably noted since this was asked last: place, first offset, end."""
        ...

    def take(self, place: TP, envelopes: Iterable[Envelope]) -> None:
        """Take in records of *place*, in order."""
        ...

    def reached(self, place: TP, position: int) -> None:
        """Note that nothing else lies before *position*."""
        ...

    @property
    def full(self) -> bool:
        """Whether a flush is due before more is taken."""
        ...

    @property
    def waiting(self) -> int:
        """How many records are not written yet."""
        ...

    def ahead(self) -> frozenset[TP]:
        """Return the places of which something waits for records of others, which must be read meanwhile."""
        ...

    def positions(self) -> Mapping[TP, int]:
        """Return up to where each place is durable."""
        ...

    def flush(self) -> bool:
        """Make durable what is ready; return whether there was any."""
        ...

    def care(self, now: float) -> None:
        """Merge small files, drop what is too old, remove what dead writers left (*now* in seconds)."""
        ...


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """Where an archive is, of which log, whether with bodies, and the file that says how long it keeps what.

    Files that were merged are kept *merged_s* seconds.
    """

    where: str
    cluster: str
    prefix: str
    bodies: bool = False
    retention: Path | None = None
    merged_s: float = 3600.0


OpenArchive = Callable[[ArchivePlace], Archive]
"""Opens or begins an archive; may raise `OSError`, `InvalidRecord`, `ConfigError` or `Unavailable`."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Seconds that a record waits to be written, and between two rounds of care."""

    flush_s: float = 30.0
    care_s: float = 300.0


class ArchiveRunner:
    """Feeds the *archive*; its work on files runs in a thread, one piece at a time."""

    group = "archive"

    def __init__(
        self, archive: Archive, topics: Sequence[str], world: World, limits: ArchiveLimits | None = None
    ) -> None:
        self.topics = tuple(topics)
        self._archive = archive
        self._world = world
        self._limits = limits or ArchiveLimits()
        self._lock = asyncio.Lock()
        self._owned: frozenset[TP] = frozenset()
        self._starts: Mapping[TP, int] = {}
        self._read: dict[TP, int] = {}
        self._leapt: dict[TP, int] = {}
        self._reported: dict[TP, int] = {}
        self._since: int | None = None
        self._retry_at = 0
        self._care_at = world.now() + int(1000 * self._limits.care_s)
        self._taken = 0

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Take over; raises `ConfigError` if the archive is ahead of a topic, which is another's then."""
        places = sorted(partitions)
        begins, ends = await self._world.log.begins(places), await self._world.log.ends(places)
        async with self._lock:
            before = self._world.now() / 1000 - _GRACE_S
            starts = dict(await asyncio.to_thread(self._archive.assigned, places, before=before))
            for tp, offset in starts.items():
                if offset > ends[tp]:
                    raise ConfigError(
                        f"the archive holds {tp[0]}/{tp[1]} up to offset {offset}, but the topic ends at "
                        f"{ends[tp]}: it was made anew; give another archive"
                    )
                self._archive.starts_at(tp, begins[tp])
            # What is lost is on record before it is told: whoever takes over next does not find it anew.
            await asyncio.to_thread(self._archive.flush)
            self._tell_gaps()
            self._starts = {tp: max(offset, begins[tp]) for tp, offset in starts.items()}
            self._read, self._leapt = dict(self._starts), {}
            self._reported = {}
            self._owned = partitions

    def _tell_gaps(self) -> None:
        for tp, first, end in self._archive.gaps():
            self._world.telemetry.archive_gap(*tp, first, end)

    def starts(self) -> Mapping[TP, int]:
        """Return where reading begins, whatever the group committed."""
        return self._starts

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Let go, once a file that is being written is written."""
        self._owned -= partitions
        async with self._lock:
            self._archive.revoked(partitions)

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Take *batch*, and write if so much waits that it must."""
        async with self._lock:
            if tp not in self._owned:
                return
            self._reaches(tp, batch[0].offset)
            await self._look()
            self._archive.take(tp, batch)
            self._read[tp] = max(self._read[tp], batch[-1].offset + 1)
            self._taken += len(batch)
            if self._since is None:
                self._since = self._world.now()
        while self._archive.full and tp in self._owned:
            if await self._flushed():
                return  # what is still too much waits for what other places have not given yet: `paused`
            await asyncio.sleep(_RETRY_S)

    def _reaches(self, tp: TP, offset: int) -> None:
        if offset > self._read[tp]:
            self._leapt[tp] = offset

    async def _look(self) -> None:
        """See whether what reading leapt over was dropped meanwhile, or never were records.

        Compaction and the marks of transactions leave offsets without a record; retention moves the begin.
        """
        leaps = {tp: offset for tp, offset in self._leapt.items() if tp in self._owned}
        begins = await self._world.log.begins(sorted(leaps))
        for tp, offset in leaps.items():
            if self._leapt[tp] == offset:  # else reading leapt on meanwhile
                del self._leapt[tp]
            if begins[tp] > self._read[tp]:
                self._archive.lost(tp, min(begins[tp], offset))
                self._since = self._world.now() if self._since is None else self._since
            self._archive.reached(tp, offset)
            self._read[tp] = offset

    async def _flushed(self) -> bool:
        """Write what waits; False if the place of the archive does not take it now."""
        async with self._lock:
            try:
                moved = await asyncio.to_thread(self._archive.flush)
            except OSError as error:
                self._world.telemetry.waiting(self.group, f"the archive's files ({type(error).__name__})")
                self._retry_at = self._world.now() + int(1000 * _RETRY_S)
                return False
            self._tell_gaps()
            self._since = self._world.now() if self._archive.waiting else None
            if moved:
                self._world.telemetry.stage_done("archive", 1)
            return True

    def reached(self, tp: TP, position: int) -> None:
        """Pass on, at the next tick: what was dropped is to be told from what never was."""
        if tp in self._owned:
            self._reaches(tp, position)

    def paused(self) -> frozenset[TP]:
        """Return what runs ahead of the records that it refers to, while memory holds enough of it.

        Waiting for files needs no pause: it holds the agent, and with it the reading.
        """
        return self._archive.ahead() & self._owned if self._archive.full else frozenset()

    def commits(self) -> Mapping[TP, Commit]:
        """Return up to where each partition is in the archive, where that moved."""
        moved = {
            tp: offset
            for tp, offset in self._archive.positions().items()
            if tp in self._owned and self._reported.get(tp, 0) < offset
        }
        self._reported |= moved
        return {tp: Commit(offset) for tp, offset in moved.items()}

    async def tick(self) -> None:
        """Write what has waited long enough; care for the files once in a while."""
        now = self._world.now()
        if self._leapt:
            async with self._lock:
                await self._look()
        if now < self._retry_at:
            return
        if self._since is not None and now - self._since >= 1000 * self._limits.flush_s:
            await self._flushed()
        if now >= self._care_at:
            self._care_at = now + int(1000 * self._limits.care_s)
            async with self._lock:
                try:
                    await asyncio.to_thread(self._archive.care, now / 1000)
                except OSError as error:
                    self._world.telemetry.waiting(self.group, f"the archive's files ({type(error).__name__})")

    async def drain(self, timeout_s: float) -> None:
        """Write what waits, if that is done in time."""
        if self._since is not None:
            await asyncio.wait([asyncio.create_task(self._flushed())], timeout=timeout_s)

    def progress(self) -> Progress:
        """Return how much waits, and since when."""
        return Progress(in_flight=self._archive.waiting, oldest_since=self._since, done=self._taken)
