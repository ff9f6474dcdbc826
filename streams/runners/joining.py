"""Host a stage that gathers by origin: one `Gather` per partition, rebuilt on every assignment."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.errors import InvalidRecord, PolicyMissing, Unavailable
from agents.gather import NO_ORIGIN, Arrival, Gather, Gathered
from agents.lost import Origins
from agents.topology import BEHIND_THE_LAST, Emit, JoinStage, gather_for, missing, unplaced
from schemas.codec import UndecodableError
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.topics import REQUESTS
from streams.log import TP, Commit, Placed
from streams.policies import SAY_AGAIN_S
from streams.runners import Group, Progress, World
from streams.suspects import CONDEMNED, poison
from streams.vitals import Head

_CHECKPOINT_EVERY = 1000
_ON_THE_WAY = 9 * 500
"""Records of an input that were fetched before its pause was applied: a full channel and one more."""


@dataclass(slots=True)
class _Lane:
    """One partition: its gather, the stage's own state, and what the read-back position follows from."""

    gather: Gather
    state: Any
    origins: Origins
    written: dict[int, int] = field(default_factory=dict)
    floor: int = 0
    checkpoints: deque[tuple[int, int]] = field(default_factory=deque)
    alive: bool = True


class JoinRunner:
    """Runs a `JoinStage`. Commits of all inputs go out in one request, with the read-back position."""

    def __init__(self, stage: JoinStage, world: World) -> None:
        self.group = stage.role
        self.topics = (REQUESTS, *stage.inputs)
        self._stage = stage
        self._world = world
        self._burial = world.letters.of(stage.name, stage.role)
        self._accepts = dict(zip(self.topics, stage.accepts, strict=True))
        self._lanes: dict[int, _Lane] = {}
        self._ends: dict[TP, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._progress = Progress()
        self._stepping = asyncio.Lock()
        self._group: Group | None = None

    def bind(self, group: Group) -> None:
        """Take the member that asks and records what the group committed."""
        self._group = group

    @property
    def width(self) -> int:
        """Return how many requests behind the commit may have been stepped."""
        return self._stage.window

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Rebuild each partition: committed offsets, then what the role itself wrote since."""
        numbers = sorted({p for _, p in partitions})
        tps = [(topic, p) for p in numbers for topic in self.topics]
        missing = [tp for tp in tps if tp not in partitions]
        if missing:
            message = f"{self.group}: {missing[0]} is assigned elsewhere; its inputs need equal partitions"
            raise RuntimeError(message)
        committed = await self._group.committed(tps) if self._group is not None else {}
        begins = await self._world.log.begins(tps)
        for p in numbers:
            start = {
                topic: max(committed[topic, p].offset if (topic, p) in committed else 0, begins[topic, p])
                for topic in self.topics
            }
            note = committed[REQUESTS, p].metadata if (REQUESTS, p) in committed else ""
            self._lanes[p] = await self._lane(p, start, _back(note, self._stage.reads_back))

    async def _lane(self, p: int, start: dict[str, int], back: int) -> _Lane:
        own = (self._stage.reads_back, p)
        state = self._stage.state()
        written: dict[int, int] = {}
        until = start.get(own[0])
        begin = max(back, (await self._world.log.begins([own]))[own])
        checkpoints: deque[tuple[int, int]] = deque()
        async for envelope in self._world.log.read({own: begin}):
            if until is not None and envelope.offset >= until:
                break  # an input of ours: from here on it comes as input
            if envelope.offset % _CHECKPOINT_EVERY == 0:
                checkpoints.append((envelope.timestamp, envelope.offset))
            await self._read_back(state, envelope, start[REQUESTS], written)
        known = [] if own[0] in self._stage.inputs else list(written)
        gather, origins = gather_for(self._stage, start, known), Origins(self._stage.window)
        # Not from the last record on: that may be of another role, and hold no balance of the state.
        lane = _Lane(gather, state, origins, dict(written), begin + 1, checkpoints)
        if own[0] in self._stage.inputs:
            lane.written.clear()
        return lane

    async def _read_back(self, state: Any, envelope: Envelope, low: int, written: dict[int, int]) -> None:
        try:
            record = self._world.codec.decode_as(Decision, envelope.value)
            origin = (await self._derived(envelope, record)).origin
        except (UndecodableError, InvalidRecord):
            return  # a dead letter, by whoever has it as input
        self._stage.note(state, envelope, record)
        if origin >= low:
            written.setdefault(origin, envelope.offset)

    async def _derived(self, envelope: Envelope, record: Any) -> Arrival:
        """Place a record that is noted as first of its request, which must exist then."""
        arrival = self._stage.arrive(envelope.topic, envelope, record)
        place, lane = (REQUESTS, envelope.partition), self._lanes.get(envelope.partition)
        if lane is not None and arrival.origin < lane.gather.requested:
            return arrival
        if arrival.origin >= self._ends.get(place, 0):
            self._ends.update(await self._world.log.ends([place]))
        if arrival.origin >= self._ends[place]:
            raise InvalidRecord(BEHIND_THE_LAST)
        return arrival

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Forget the partitions; their next owner reads the pending inputs again."""
        for p in {p for _, p in partitions}:
            lane = self._lanes.pop(p, None)
            if lane is not None:
                lane.alive = False

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Let the batch into its partition's gather and act on what is ready."""
        topic, p = tp
        lane = self._lanes.get(p)
        if lane is None:
            return
        lane.gather.offer(topic, [await self._arrival(lane, topic, envelope) for envelope in batch])
        await self._advance(p, lane)

    async def _arrival(self, lane: _Lane, topic: str, envelope: Envelope) -> Arrival:
        try:
            record = self._world.codec.decode_as(self._accepts[topic], envelope.value)
        except UndecodableError as error:
            return await self._unusable(lane, topic, envelope, error)
        if topic == self._stage.reads_back and envelope.offset % _CHECKPOINT_EVERY == 0:
            lane.checkpoints.append((envelope.timestamp, envelope.offset))
        try:
            arrival = await self._placed(topic, envelope, record)
        except InvalidRecord as error:
            return await self._unusable(lane, topic, envelope, error)
        self._stage.note(lane.state, envelope, record)
        if topic == REQUESTS:
            for source in lane.origins.note(record.request_id, envelope.offset):
                lane.gather.lose(source, envelope.offset)
        return arrival

    async def _unusable(self, lane: _Lane, topic: str, envelope: Envelope, error: Exception) -> Arrival:
        """Bury what belongs nowhere; the request that its key names does not wait for it."""
        await self._burial.bury(envelope, error)
        origin = None if topic == REQUESTS else lane.origins.lose(envelope.key, topic)
        return unplaced(envelope) if origin is None else missing(envelope, origin)

    async def _placed(self, topic: str, envelope: Envelope, record: Any) -> Arrival:
        if topic == self._stage.reads_back:
            return await self._derived(envelope, record)
        while True:
            try:
                return self._stage.arrive(topic, envelope, record)
            except PolicyMissing as absent:
                self._world.telemetry.waiting(self._stage.name, "policy")
                await self._world.policies.has(absent.policy_hash, SAY_AGAIN_S)

    async def _advance(self, p: int, lane: _Lane) -> None:
        """Step whatever is ready; acknowledgements are awaited beside, bounded by the window."""
        while ready := lane.gather.ready():
            sent = []
            for gathered in ready:
                if self._group is not None and self._group.is_suspect((REQUESTS, p), gathered.origin):
                    await self._alone(self._group, p, lane, gathered)
                else:
                    sent.append((gathered.origin, await self._sent(await self._step(p, lane, gathered))))
            if sent:
                task = asyncio.create_task(self._settle(p, lane, sent))
                self._tasks.add(task)
                task.add_done_callback(self._finished)

    async def _sent(self, emits: Sequence[Emit]) -> list[Any]:
        return [await self._world.outbox.send(emit) for emit in emits]

    async def _alone(self, group: Group, p: int, lane: _Lane, gathered: Gathered) -> None:
        """Step what may have ended the last process, on record and with no other step at the same time."""
        async with self._stepping:
            try:
                crashes = await group.alone((REQUESTS, p), gathered.origin)
            except Unavailable:
                return  # given away meanwhile: its next owner gathers it again
            if crashes < CONDEMNED:
                emits = await self._step(p, lane, gathered)
            else:
                await self._burial.bury(await self._original(p, gathered.origin), poison(crashes), crashes)
                emits = self._stage.on_failure(lane.state, p, gathered, self._world.now())
            acks = await self._sent(emits)
            placed: list[Placed] = [await ack for ack in acks]
            if lane.alive:
                self._settled(lane, gathered.origin, placed)
            group.done((REQUESTS, p))

    def _settled(self, lane: _Lane, origin: int, placed: Sequence[Placed]) -> None:
        if placed:
            lane.written[origin] = placed[0].offset
        lane.gather.settle(origin)
        lane.origins.settle(origin)
        self._progress.done += 1

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._world.telemetry.fatal(self._stage.name, task.exception())

    async def _step(self, p: int, lane: _Lane, gathered: Gathered) -> Sequence[Emit]:
        now = self._world.now()
        try:
            emits = self._stage.step(lane.state, p, gathered, now)
        except Exception as error:  # noqa: BLE001 - any failure of a step is a dead letter, never a loss
            await self._burial.bury(await self._original(p, gathered.origin), error)
            return self._stage.on_failure(lane.state, p, gathered, now)
        self._burial.succeeded(1)
        self._world.telemetry.stepped(self._stage.name, emits)
        return emits

    async def _original(self, p: int, offset: int) -> Envelope:
        return await self._record(REQUESTS, p, offset)

    async def _record(self, topic: str, p: int, offset: int) -> Envelope:
        async for envelope in self._world.log.read({(topic, p): offset}):
            if envelope.offset == offset:
                return envelope
            break
        return Envelope(topic, p, offset, 0, None, None)

    async def _settle(self, p: int, lane: _Lane, sent: list[tuple[int, list[Any]]]) -> None:
        for origin, acks in sent:
            placed: list[Placed] = [await ack for ack in acks]
            if not lane.alive:
                return
            self._settled(lane, origin, placed)
        self._world.telemetry.stage_done(self._stage.name, len(sent))
        await self._advance(p, lane)

    def reached(self, tp: TP, position: int) -> None:
        """Let the input go over a gap."""
        lane = self._lanes.get(tp[1])
        if lane is not None:
            lane.gather.reach(tp[0], position)

    def paused(self) -> frozenset[TP]:
        """Return the inputs that run ahead of the oldest unsettled origin."""
        return frozenset((topic, p) for p, lane in self._lanes.items() for topic in lane.gather.paused())

    def commits(self) -> Mapping[TP, Commit]:
        """Return the capped offsets of all inputs, `requests` with the read-back position."""
        out: dict[TP, Commit] = {}
        for p, lane in self._lanes.items():
            for topic, offset in lane.gather.commits().items():
                note = self._metadata(lane) if topic == REQUESTS else ""
                out[topic, p] = Commit(offset, note)
        return out

    def _metadata(self, lane: _Lane) -> str:
        low = lane.gather.low
        for origin in [o for o in lane.written if o < low]:
            lane.floor = max(lane.floor, lane.written.pop(origin) + 1)
        # The last record that is settled is read back too: it holds the balance of the stage's state.
        position = min([max(lane.floor - 1, 0), *lane.written.values()])
        if self._stage.horizon_ms:
            horizon = self._world.now() - self._stage.horizon_ms
            while len(lane.checkpoints) > 1 and lane.checkpoints[1][0] < horizon:
                lane.checkpoints.popleft()
            position = lane.checkpoints[0][1] if lane.checkpoints else 0
        return json.dumps({"back": {self._stage.reads_back: position}})

    async def tick(self) -> None:
        """Let deadlines fire: fetch the ends that they need, then expire."""
        for p, lane in list(self._lanes.items()):
            now = self._world.now()
            wanted = lane.gather.overdue(now)
            if wanted:
                ends = await self._world.log.ends([(topic, p) for topic in wanted])
                lane.gather.ends({topic: ends[topic, p] for topic in wanted}, now)
            lane.gather.expire(now)
            await self._drop_strays(p, lane)
            await self._advance(p, lane)

    async def _drop_strays(self, p: int, lane: _Lane) -> None:
        """Bury what claims to derive from a request that does not exist; it would be held for ever."""
        now, due = self._world.now(), lane.gather.strays_at()
        if due is None or now < due:
            return
        end = (await self._world.log.ends([(REQUESTS, p)]))[REQUESTS, p]
        for topic, offset in lane.gather.strays(end, now):
            envelope = await self._record(topic, p, offset)
            arrival = await self._unusable(lane, topic, envelope, InvalidRecord(BEHIND_THE_LAST))
            if arrival.origin != NO_ORIGIN:
                lane.gather.lose(topic, arrival.origin)

    async def drain(self, timeout_s: float) -> None:
        """Wait for acknowledgements that are outstanding."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def progress(self) -> Progress:
        """Return how much is held, and how much of it waits for a signal."""
        self._progress.in_flight = sum(lane.gather.unsettled for lane in self._lanes.values())
        held = max((lane.gather.held for lane in self._lanes.values()), default=0)
        most = self._stage.window * len(self.topics) + _ON_THE_WAY * len(self.topics)
        self._progress.buffers = {"held": (held, most)}
        self._progress.details = {
            "held": sum(lane.gather.held for lane in self._lanes.values()),
            "late": sum(lane.gather.late_signals for lane in self._lanes.values()),
            "paused": len(self.paused()),
        }
        self._progress.heads = {
            p: Head(lane.gather.low, lane.gather.waits_until())
            for p, lane in self._lanes.items()
            if lane.gather.unsettled
        }
        self._progress.waiting_for = "signal" if self._progress.in_flight else ""
        return self._progress


def _back(metadata: str, topic: str) -> int:
    try:
        return int(json.loads(metadata)["back"][topic])
    except (ValueError, KeyError, TypeError):
        return 0
