"""The topology's second driver: a fold over records, without Faust, Kafka, threads or wall clock.

Stages run in the order given, partition by partition, until none can go on; time passes only when
the caller lets it. The same input gives the same output in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agents.errors import InvalidRecord, PolicyMissing, Unavailable
from agents.gather import GRACE_MS, NO_DEADLINE, NO_ORIGIN, Arrival, Gather, Gathered
from agents.lanes import BreakerLimits, Lanes
from agents.lost import Origins
from agents.policy import Policy, PolicyBook
from agents.ports import Complete
from agents.providers import ProviderConfig
from agents.step import dead_letter
from agents.topology import (
    BEHIND_THE_LAST,
    Emit,
    JoinStage,
    MapStage,
    RetryStage,
    Stage,
    WorkStage,
    gather_for,
    missing,
    unplaced,
)
from agents.turn import Desk, Parking
from replay.folding_policies import PoliciesFold
from replay.folding_retry import RetryFold
from replay.folding_work import WorkFold
from replay.shelf import Place, Shelf
from schemas.codec import Codec, UndecodableError
from schemas.envelope import Envelope
from schemas.retry import Retry
from schemas.topics import DEAD_LETTERS, REQUESTS

_BATCH = 500
_RETRY_MS = 500


class VirtualClock:
    """A clock that stands still until it is moved; called, it gives µs as the `Clock` port does."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return µs since the epoch."""
        return self.now * 1000

    def millis(self) -> int:
        """Return ms since the epoch."""
        return self.now

    def advance(self, ms: int) -> None:
        """Let *ms* milliseconds pass; raises ValueError if that were backwards."""
        if ms < 0:
            message = f"time does not pass backwards ({ms} ms)"
            raise ValueError(message)
        self.now += ms


@dataclass(frozen=True, slots=True)
class Providers:
    """The outside that work stages call: the port, each provider's dialect, the caller and its limits."""

    complete: Complete
    dialects: Mapping[str, ProviderConfig]
    worker: str = "fold"
    parking: Parking = field(default_factory=Parking)
    breaker: BreakerLimits = field(default_factory=BreakerLimits)


@dataclass(slots=True)
class FoldWorld:
    """What every stage of a fold shares; `emitted` is all that stages returned, in order."""

    shelf: Shelf
    codec: Codec
    book: PolicyBook
    clock: VirtualClock
    emitted: list[Emit] = field(default_factory=list)

    def emit(self, emit: Emit) -> Envelope:
        """Append what a stage returned to its topic."""
        self.emitted.append(emit)
        value = self.codec.encode(emit.record)
        return self.shelf.append((emit.topic, emit.partition), emit.key, value, self.clock.now)

    def put_back(self, retry: Retry) -> None:
        """Append a record that waited to its own topic."""
        headers = [(h.key, h.value) for h in retry.headers]
        place = (retry.topic, retry.partition)
        self.shelf.append(place, retry.key, retry.value, self.clock.now, headers)

    def bury(self, stage: str, envelope: Envelope, error: BaseException) -> None:
        """Write the dead letter of *envelope*."""
        letter = dead_letter(stage, envelope, error, now=self.clock.now)
        place = (DEAD_LETTERS, letter.partition % self.shelf.partitions(DEAD_LETTERS))
        self.emitted.append(Emit(*place, letter.key or b"", letter))
        self.shelf.append(place, letter.key, self.codec.encode(letter), self.clock.now)


class StageFold(Protocol):
    """One stage under the fold."""

    async def step(self) -> bool:
        """Do what can be done now; tell whether anything was."""
        ...

    def due(self) -> int | None:
        """Return when (ms) time alone lets it go on, if ever; may lie in the past."""
        ...


class Fold:
    """Runs *stages*, whose book and clock must be *book* and *clock*, over records in memory.

    Signals (or any other derived records) that a log holds can be recorded instead of computed:
    leave their stage out and `load` them.
    """

    def __init__(  # noqa: PLR0913 - the parts of one composition
        self,
        stages: Sequence[Stage],
        codec: Codec,
        partitions: int,
        clock: VirtualClock,
        book: PolicyBook,
        providers: Providers | None = None,
    ) -> None:
        self.clock = clock
        self._world = FoldWorld(Shelf(partitions), codec, book, clock)
        self._policies = PoliciesFold(self._world)
        self._stages: list[StageFold] = [_stage_fold(stage, self._world, providers) for stage in stages]

    @property
    def active(self) -> str | None:
        """The hash of the active policy."""
        return self._policies.life.active

    def in_shadow(self) -> Policy | None:
        """Return the shadow policy, if there is one that has been read."""
        return self._policies.life.shadow_in(self._world.book)

    @property
    def emitted(self) -> Sequence[Emit]:
        """Every record that stages returned, dead letters included, in the order of their emission."""
        return self._world.emitted

    def envelopes(self, topic: str) -> list[Envelope]:
        """Return every record of *topic*, partition by partition."""
        return self._world.shelf.envelopes(topic)

    def append(
        self,
        place: Place,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes]] = (),
        timestamp: int | None = None,
    ) -> Envelope:
        """Append a record from outside; its *timestamp* (ms) is the clock's unless given."""
        when = self.clock.now if timestamp is None else timestamp
        return self._world.shelf.append(place, key, value, when, headers)

    def load(self, recorded: Iterable[Envelope]) -> None:
        """Add records of a log with their own offsets and timestamps; raises ValueError out of order."""
        for envelope in recorded:
            self._world.shelf.place(envelope)

    async def run(self) -> None:
        """Go on until nothing can go on at the present time."""
        moved = True
        while moved:
            moved = self._policies.step()
            for stage in self._stages:
                moved |= await stage.step()

    def due(self) -> int | None:
        """Return the next time (ms) at which something can go on; None if nothing waits for time."""
        times = [t for stage in self._stages if (t := stage.due()) is not None and t > self.clock.now]
        return min(times, default=None)

    async def finish(self) -> None:
        """Run, moving the clock to whatever is due next, until nothing waits for time."""
        await self.run()
        while (due := self.due()) is not None:
            self.clock.advance(due - self.clock.now)
            await self.run()


def _stage_fold(stage: Stage, world: FoldWorld, providers: Providers | None) -> StageFold:
    if isinstance(stage, MapStage):
        return _MapFold(stage, world)
    if isinstance(stage, JoinStage):
        return _JoinFold(stage, world)
    if isinstance(stage, RetryStage):
        return RetryFold(stage, world)
    return _work_fold(stage, world, providers)


def _work_fold(stage: WorkStage, world: FoldWorld, providers: Providers | None) -> StageFold:
    if providers is None:
        message = f"{stage.name} calls a provider; give the fold its providers"
        raise ValueError(message)
    desk = Desk(providers.worker, lanes=Lanes(providers.breaker), parking=providers.parking)
    return WorkFold(stage, world, providers.complete, providers.dialects[stage.provider], desk)


class _MapFold:
    """A `MapStage` under the fold."""

    def __init__(self, stage: MapStage, world: FoldWorld) -> None:
        self._stage = stage
        self._world = world
        self._position: dict[int, int] = {}
        self._retry_at: int | None = None

    async def step(self) -> bool:
        moved = False
        for p in range(self._world.shelf.partitions(self._stage.source)):
            moved |= await self._partition(p)
        return moved

    def due(self) -> int | None:
        return self._retry_at

    async def _partition(self, p: int) -> bool:
        place = (self._stage.source, p)
        chunk = self._world.shelf.after(place, self._position.get(p, 0), self._stage.chunk)
        if not chunk or (self._retry_at is not None and self._retry_at > self._world.clock.now):
            return False
        failures: list[tuple[Envelope, UndecodableError]] = []
        decoded: list[tuple[Envelope, Any]] = []
        for envelope in chunk:
            try:
                decoded.append((envelope, self._decoded(envelope)))
            except UndecodableError as error:
                failures.append((envelope, error))
        try:
            emits = await self._emits(decoded)
        except PolicyMissing:
            return False
        except Unavailable:
            self._retry_at = self._world.clock.now + _RETRY_MS
            return False
        self._retry_at = None
        for envelope, failure in failures:
            self._world.bury(self._stage.name, envelope, failure)
        for emit in emits:
            self._world.emit(emit)
        self._position[p] = chunk[-1].offset + 1
        return True

    def _decoded(self, envelope: Envelope) -> object:
        if self._stage.accepts is None:
            return None
        return self._world.codec.decode_as(self._stage.accepts, envelope.value)

    async def _emits(self, decoded: Sequence[tuple[Envelope, Any]]) -> list[Emit]:
        if not decoded:
            return []
        try:
            return [emit for out in await self._stage.step(decoded) for emit in out]
        except (PolicyMissing, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - as in the host: a failure of a step is a dead letter
            if len(decoded) > 1:
                return [emit for pair in decoded for emit in await self._emits([pair])]
            envelope, record = decoded[0]
            self._world.bury(self._stage.name, envelope, error)
            return list(self._stage.on_failure(envelope, record))


@dataclass(slots=True)
class _Lane:
    """One partition of a join: its gather and how far each input was read."""

    gather: Gather
    state: Any
    origins: Origins
    position: dict[str, int]
    deadlines: dict[int, int] = field(default_factory=dict)


class _JoinFold:
    """A `JoinStage` under the fold; what a step emits is acknowledged at once."""

    def __init__(self, stage: JoinStage, world: FoldWorld) -> None:
        self._stage = stage
        self._world = world
        self._accepts = dict(zip((REQUESTS, *stage.inputs), stage.accepts, strict=True))
        self._lanes: dict[int, _Lane] = {}

    async def step(self) -> bool:
        moved = False
        for p in range(self._world.shelf.partitions(REQUESTS)):
            lane = self._lane(p)
            for topic in self._accepts:
                moved |= self._read(p, lane, topic)
            moved |= self._expire(p, lane)
        return moved

    def due(self) -> int | None:
        times = [t for lane in self._lanes.values() for t in lane.deadlines.values()]
        times += [t for lane in self._lanes.values() if (t := lane.gather.strays_at()) is not None]
        return min((t for t in times if t > self._world.clock.now), default=None)

    def _lane(self, p: int) -> _Lane:
        lane = self._lanes.get(p)
        if lane is None:
            start = {topic: self._world.shelf.begin((topic, p)) for topic in self._accepts}
            gather, origins = gather_for(self._stage, start), Origins(self._stage.window)
            lane = _Lane(gather, self._stage.state(), origins, dict(start))
            self._lanes[p] = lane
        return lane

    def _read(self, p: int, lane: _Lane, topic: str) -> bool:
        if topic in lane.gather.paused():
            return False
        arrivals: list[Arrival] = []
        for envelope in self._world.shelf.after((topic, p), lane.position[topic], _BATCH):
            try:
                arrivals.append(self._arrival(p, lane, topic, envelope))
            except PolicyMissing:
                break
            lane.position[topic] = envelope.offset + 1
        lane.gather.offer(topic, arrivals)
        return self._act(p, lane) or bool(arrivals)

    def _arrival(self, p: int, lane: _Lane, topic: str, envelope: Envelope) -> Arrival:
        try:
            record = self._world.codec.decode_as(self._accepts[topic], envelope.value)
        except UndecodableError as error:
            return self._unusable(lane, topic, envelope, error)
        try:
            arrival = self._stage.arrive(topic, envelope, record)
            if topic == self._stage.reads_back and arrival.origin >= self._world.shelf.end((REQUESTS, p)):
                raise InvalidRecord(BEHIND_THE_LAST)  # noqa: TRY301 - as if it were of another partition
        except InvalidRecord as error:
            return self._unusable(lane, topic, envelope, error)
        self._stage.note(lane.state, envelope, record)
        if topic == REQUESTS:
            for source in lane.origins.note(record.request_id, envelope.offset):
                lane.gather.lose(source, envelope.offset)
        if topic == REQUESTS and arrival.decide_by < NO_DEADLINE:
            lane.deadlines[arrival.origin] = arrival.decide_by + GRACE_MS
        return arrival

    def _unusable(self, lane: _Lane, topic: str, envelope: Envelope, error: Exception) -> Arrival:
        self._world.bury(self._stage.name, envelope, error)
        origin = None if topic == REQUESTS else lane.origins.lose(envelope.key, topic)
        return unplaced(envelope) if origin is None else missing(envelope, origin)

    def _expire(self, p: int, lane: _Lane) -> bool:
        now = self._world.clock.now
        wanted = lane.gather.overdue(now)
        if wanted:
            lane.gather.ends({topic: self._world.shelf.end((topic, p)) for topic in wanted}, now)
        lane.gather.expire(now)
        self._drop_strays(p, lane)
        return self._act(p, lane)

    def _drop_strays(self, p: int, lane: _Lane) -> None:
        end, now = self._world.shelf.end((REQUESTS, p)), self._world.clock.now
        for topic, offset in lane.gather.strays(end, now):
            envelope = self._world.shelf.at((topic, p), offset)
            arrival = self._unusable(lane, topic, envelope, InvalidRecord(BEHIND_THE_LAST))
            if arrival.origin != NO_ORIGIN:
                lane.gather.lose(topic, arrival.origin)

    def _act(self, p: int, lane: _Lane) -> bool:
        moved = False
        while ready := lane.gather.ready():
            moved = True
            for gathered in ready:
                for emit in self._emits(p, lane, gathered):
                    self._world.emit(emit)
                lane.deadlines.pop(gathered.origin, None)
                lane.gather.settle(gathered.origin)
                lane.origins.settle(gathered.origin)
        return moved

    def _emits(self, p: int, lane: _Lane, gathered: Gathered) -> Sequence[Emit]:
        now = self._world.clock.now
        try:
            return self._stage.step(lane.state, p, gathered, now)
        except Exception as error:  # noqa: BLE001 - as in the host: a failure of a step is a dead letter
            self._world.bury(self._stage.name, self._world.shelf.at((REQUESTS, p), gathered.origin), error)
            return self._stage.on_failure(lane.state, p, gathered, now)
