"""Dead letters as operators handle them: listed, returned to where they came from, or given up.

A letter stays in its topic; what became of it is a `LetterClosed` behind it. Letters of one original,
which every stage that could not read it wrote, belong together: it is returned once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agents.dispatch import failure
from agents.errors import Unavailable
from agents.topology import Emit
from schemas.completion import Result
from schemas.dead_letter import DeadLetter, LetterClosed
from schemas.identity import Origin
from schemas.job import Job
from schemas.request import Request
from schemas.topics import DEAD_LETTERS, REQUESTS, RESULTS
from streams.log import TP
from streams.runners import World
from streams.runs import decoded

REDRIVEN, PURGED, OPEN = "redriven", "purged", "open"
STATES = (OPEN, REDRIVEN, PURGED)
_SIGNAL = "signal."
_DERIVED = ("signals.", "decisions", "attempts.", "completions", "results")

Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A dead letter without its body, where it is, whose it is as far as can be told, and its state."""

    partition: int
    offset: int
    letter: DeadLetter
    size: int
    tenant: str = ""
    run: str = ""
    deadline: int = 0
    closed: tuple[LetterClosed, ...] = ()

    @property
    def id(self) -> str:
        """Return how the command line names it."""
        return f"{self.partition}-{self.offset}"

    @property
    def state(self) -> str:
        """Return what became of it last."""
        return self.closed[-1].verb if self.closed else OPEN

    @property
    def original(self) -> Place:
        """Return where the original lies."""
        return self.letter.topic, self.letter.partition, self.letter.offset

    @property
    def ends_request(self) -> bool:
        """Whether its request waits for it: what lost a signal only is decided without."""
        return not self.letter.stage.startswith(_SIGNAL) or self.letter.error_class == "UndecodableError"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; what is None does not matter. Times are ms since the epoch."""

    ids: frozenset[str] = frozenset()
    request: bytes | None = None
    stage: str | None = None
    topic: str | None = None
    error: str | None = None
    tenant: str | None = None
    run: str | None = None
    since: int | None = None
    until: int | None = None
    state: str | None = None

    def takes(self, entry: Entry) -> bool:
        """Tell whether *entry* is one of them."""
        letter = entry.letter
        wanted: tuple[tuple[Any, Any], ...] = (
            (self.request, letter.request_id),
            (self.stage, letter.stage),
            (self.topic, letter.topic),
            (self.error, letter.error_class),
            (self.tenant, entry.tenant),
            (self.run, entry.run),
            (self.state, entry.state),
        )
        return (
            (not self.ids or entry.id in self.ids)
            and all(want is None or want == found for want, found in wanted)
            and (self.since is None or letter.died_at >= self.since)
            and (self.until is None or letter.died_at < self.until)
        )


@dataclass(slots=True)
class Outcome:
    """What was done to the letters that were meant: each done, or left alone for a reason."""

    done: list[Entry] = field(default_factory=list)
    left: list[tuple[Entry, str]] = field(default_factory=list)
    failed: list[tuple[Entry, str]] = field(default_factory=list)


async def letters(world: World) -> list[Entry]:
    """Return every dead letter in the log, without bodies, oldest first."""
    partitions = await world.log.partitions(DEAD_LETTERS)
    found: dict[tuple[int, int], Entry] = {}
    starts = await world.log.begins([(DEAD_LETTERS, p) for p in range(partitions)])
    async for envelope in world.log.read(starts):
        record = decoded(world.codec, envelope.value)
        place = (envelope.partition, envelope.offset)
        if isinstance(record, DeadLetter):
            found[place] = _entry(world, *place, record)
        elif isinstance(record, LetterClosed) and (record.partition, record.offset) in found:
            entry = found[record.partition, record.offset]
            found[record.partition, record.offset] = replace(entry, closed=(*entry.closed, record))
    return sorted(found.values(), key=lambda e: (e.letter.died_at, e.partition, e.offset))


def _entry(world: World, partition: int, offset: int, letter: DeadLetter) -> Entry:
    record = decoded(world.codec, letter.value)
    tenant, run, deadline = "", "", 0
    if isinstance(record, Request | Job | Result):
        tenant, run = record.tenant, record.run
        deadline = getattr(record, "deadline", 0)
    bare = replace(letter, value=None, headers=())
    return Entry(partition, offset, bare, len(letter.value or b""), tenant, run, deadline)


async def full(world: World, entry: Entry) -> DeadLetter:
    """Return the letter of *entry* with its body; raises `Unavailable` if the log has it no more."""
    async for envelope in world.log.read({(DEAD_LETTERS, entry.partition): entry.offset}):
        record = decoded(world.codec, envelope.value)
        if envelope.offset == entry.offset and isinstance(record, DeadLetter):
            return record
        break
    raise Unavailable(f"dead letter {entry.id} is no longer in the log")


@dataclass(frozen=True, slots=True)
class Orders:
    """How a redrive or purge is done: by whom, at most so many a second (0: any), really or only told."""

    actor: str
    rate: float = 0.0
    dry_run: bool = False
    force: bool = False
    expired_only: bool = False


def why_not(entry: Entry, orders: Orders) -> str:
    """Return why *entry* is not redriven; empty if it is."""
    if orders.force:
        return ""
    if entry.state != OPEN:
        return f"already {entry.state}; --force does it again"
    if entry.letter.topic.startswith(_DERIVED):
        return f"a record of {entry.letter.topic} is made anew from its request: redrive that instead"
    if not entry.ends_request:
        return "its request went on without this signal; nothing would change"
    return ""


async def redrive(
    world: World, every: Sequence[Entry], chosen: Sequence[Entry], orders: Orders
) -> AsyncIterator[Outcome]:
    """Return the originals of *chosen* to their topics and partitions, one at a time; yields after each.

    *every* letter of the same original is closed with it. Key, value and headers are those that died.
    """
    outcome = Outcome()
    twins = _by_original(every)
    taken: set[Place] = set()
    for entry in chosen:
        reason = why_not(entry, orders)
        if entry.original in taken:
            continue
        if reason:
            outcome.left.append((entry, reason))
            continue
        taken.add(entry.original)
        if not orders.dry_run:
            try:
                await _return(world, entry, twins[entry.original], orders)
            except Unavailable as error:
                outcome.failed.append((entry, str(error)))
                continue
            if orders.rate:
                await asyncio.sleep(1 / orders.rate)
        outcome.done.append(entry)
        yield outcome
    yield outcome


def _by_original(every: Sequence[Entry]) -> Mapping[Place, Sequence[Entry]]:
    found: dict[Place, list[Entry]] = {}
    for entry in every:
        found.setdefault(entry.original, []).append(entry)
    return found


async def _return(world: World, entry: Entry, twins: Sequence[Entry], orders: Orders) -> None:
    letter = await full(world, entry)
    place = (letter.topic, letter.partition)
    headers = [(h.key, h.value) for h in letter.headers]
    placed = await (await world.log.send(place, letter.key, letter.value, headers))
    open_ones = [twin for twin in twins if twin.state == OPEN]
    for twin in open_ones if entry in open_ones else [*open_ones, entry]:
        await _close(world, twin, REDRIVEN, orders, placed.offset)


async def _close(world: World, entry: Entry, verb: str, orders: Orders, to_offset: int = -1) -> None:
    letter = entry.letter
    closed = LetterClosed(
        entry.partition,
        entry.offset,
        verb,
        orders.actor,
        world.now(),
        letter.topic,
        letter.partition,
        to_offset,
        letter.request_id,
    )
    key = letter.request_id or letter.topic.encode()
    await (await world.outbox.send(Emit(DEAD_LETTERS, entry.partition, key, closed)))


async def purge(
    world: World, every: Sequence[Entry], chosen: Sequence[Entry], orders: Orders
) -> AsyncIterator[Outcome]:
    """Give *chosen* up: their requests end with an error Result; yields after each.

    As with a redrive, *every* letter of the same original is closed with it. With `expired_only` those
    whose request still has time are left alone.
    """
    outcome = Outcome()
    requests = await _requests(world, chosen)
    twins = _by_original(every)
    taken: set[Place] = set()
    ended: set[bytes] = set()
    for entry in chosen:
        if entry.original in taken:
            continue
        waits = any(twin.ends_request for twin in twins[entry.original])
        request_id = entry.letter.request_id if waits else None
        origin, request = requests.get(request_id or b"", (None, None))
        reason = _why_kept(entry, request, orders, world.now())
        if reason:
            outcome.left.append((entry, reason))
            continue
        taken.add(entry.original)
        if not orders.dry_run:
            if request is not None and origin is not None and request.request_id not in ended:
                ended.add(request.request_id)
                await _end(world, request, origin, entry)
            await _give_up(world, entry, twins[entry.original], orders)
        outcome.done.append(entry)
        yield outcome
    yield outcome


def _why_kept(entry: Entry, request: Request | None, orders: Orders, now: int) -> str:
    if entry.state == PURGED:
        return "already purged"
    if entry.state == REDRIVEN and not orders.force:
        return "already redriven, its request may be under way; --force purges it"
    if orders.expired_only and (request is None or now <= request.deadline):
        return "its deadline has not passed" if request is not None else "its deadline cannot be told"
    return ""


async def _give_up(world: World, entry: Entry, twins: Sequence[Entry], orders: Orders) -> None:
    for twin in twins:
        if twin is entry or twin.state == OPEN:
            await _close(world, twin, PURGED, orders)


async def _end(world: World, request: Request, origin: Origin, entry: Entry) -> None:
    message = f"stage {entry.letter.stage} could not process the request, and its dead letter was given up"
    result = failure(request, origin, (500, "dead_letter_purged", message), "", world.now())
    await (await world.outbox.send(Emit(RESULTS, origin.partition, request.request_id, result)))


async def _requests(world: World, chosen: Sequence[Entry]) -> Mapping[bytes, tuple[Origin, Request]]:
    """Return the first request of each id that *chosen* letters name, read from `requests`."""
    wanted = {e.letter.request_id for e in chosen if e.letter.request_id is not None}
    found: dict[bytes, tuple[Origin, Request]] = {}
    if not wanted:
        return found
    partitions = await world.log.partitions(REQUESTS)
    places: list[TP] = [(REQUESTS, p) for p in range(partitions)]
    async for envelope in world.log.read(await world.log.begins(places)):
        if envelope.key in wanted and envelope.key not in found:
            record = decoded(world.codec, envelope.value)
            if isinstance(record, Request):
                found[record.request_id] = (Origin(envelope.partition, envelope.offset), record)
    return found


async def last(outcomes: AsyncIterator[Outcome], progress: Callable[[int], None] | None = None) -> Outcome:
    """Run *outcomes* to their end and return what was done in all."""
    outcome = Outcome()
    async for found in outcomes:
        outcome = found
        if progress is not None:
            progress(len(found.done))
    return outcome
