"""Host a provider's worker: jobs under the ledger, with bounded concurrency and paused lanes."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from agents.errors import CallTimeout, PolicyMissing, Unavailable
from agents.gather import NO_DEADLINE
from agents.policy import Policy
from agents.ports import Complete, HttpReply
from agents.providers import ProviderConfig
from agents.topology import WorkStage, emit_for
from agents.work import RUN, SKIP, Conclusion, Ledger, Unanswered, conclude, ended, expired, started
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from schemas.job import AttemptEnded, AttemptStarted, Job
from streams.log import TP, Commit, Placed
from streams.policies import SAY_AGAIN_S
from streams.prefix import Prefix, Segment
from streams.runners import Group, Progress, World
from streams.vitals import Head

_LEDGER_HORIZON_MS = 15 * 60 * 1000
_LOOK_AGAIN_MS = 1000
_CHECKPOINT_MS = 1000
_LARGE_SHARE = 8
"""One of so many calls at once may be of a body that had to be fetched."""


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """Bounds of a worker: calls at once, and jobs in memory (called, parked or waiting)."""

    concurrency: int = 64
    jobs: int = 512


@dataclass(slots=True)
class _Lane:
    """One partition: what is committed, what the ledger says, where the ledger must be read from."""

    prefix: Prefix
    ledger: Ledger
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    checkpoints: deque[tuple[int, int]] = field(default_factory=deque)
    tail: asyncio.Task[None] | None = None
    alive: bool = True

    def checkpoint(self, placed: Placed) -> None:
        """Remember where the ledger was, once a second: the horizon bounds how many are kept."""
        if placed.timestamp >= self.checkpoints[-1][0] + _CHECKPOINT_MS:
            self.checkpoints.append((placed.timestamp, placed.offset))


class WorkRunner:
    """Runs a `WorkStage` through the port *complete*, in the provider's *dialect*."""

    def __init__(
        self, stage: WorkStage, world: World, complete: Complete, dialect: ProviderConfig, limits: WorkLimits
    ) -> None:
        self.group = stage.role
        self.topics = (stage.source,)
        self._stage = stage
        self._world = world
        self._burial = world.letters.of(stage.name, stage.role)
        self._complete = complete
        self._dialect = dialect
        self._limits = limits
        self._calls = asyncio.Semaphore(limits.concurrency)
        self._large = asyncio.Semaphore(max(1, limits.concurrency // _LARGE_SHARE))
        self._lanes: dict[int, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lane_free_at: dict[str, int] = {}
        self._parked: set[str] = set()  # jobs that an operator's pause keeps from being called
        self._progress = Progress()
        self._fetch_committed: Any = None

    def bind(self, group: Group) -> None:
        """Take the member that asks what the group committed."""
        self._fetch_committed = group.committed

    async def assigned(self, partitions: frozenset[TP]) -> None:
        """Read the ledger of each partition back from the committed position, then follow it."""
        committed: Mapping[TP, Commit] = await self._fetch_committed(sorted(partitions))
        for tp in sorted(partitions):
            commit = committed.get(tp, Commit(0))
            own = (self._stage.ledger, tp[1])
            back = max(_back(commit.metadata), (await self._world.log.begins([own]))[own])
            lane = _Lane(Prefix(commit.offset), Ledger())
            position = back
            async for envelope in self._world.log.read({own: back}):
                self._note(lane, envelope)
                position = envelope.offset + 1
            lane.checkpoints.append((self._world.now(), back))
            lane.tail = asyncio.create_task(self._follow(lane, own, position))
            self._lanes[tp[1]] = lane

    async def _follow(self, lane: _Lane, own: TP, position: int) -> None:
        """Keep reading while a start of another life may still be finished by its old owner."""
        until = lane.ledger.open_until()
        while lane.alive and self._world.now() < until:
            async for envelope in self._world.log.read({own: position}):
                self._note(lane, envelope)
                position = envelope.offset + 1
            await asyncio.sleep(_LOOK_AGAIN_MS / 1000)

    def _note(self, lane: _Lane, envelope: Envelope) -> None:
        try:
            record = self._world.codec.decode(envelope.value)
        except UndecodableError:
            return
        if isinstance(record, AttemptStarted | AttemptEnded):
            lane.ledger.note(record)

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Forget the partitions. Calls under way go on: their ends reach the new owner by the ledger."""
        for _, p in partitions:
            lane = self._lanes.pop(p, None)
            if lane is not None:
                lane.alive = False

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Start a task per job; `paused` keeps their number bounded."""
        lane = self._lanes.get(tp[1])
        if lane is None or not lane.alive:
            return
        for envelope in batch:
            segment = lane.prefix.begin(envelope.offset, envelope.offset + 1, self._world.now())
            task = asyncio.create_task(self._job(lane, segment, envelope))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._world.telemetry.fatal(self._stage.name, task.exception())

    async def _job(self, lane: _Lane, segment: Segment, envelope: Envelope) -> None:
        try:
            job: Job = self._world.codec.decode_as(Job, envelope.value)
        except UndecodableError as error:
            await self._burial.bury(envelope, error)
        else:
            await self._once(lane, envelope, job)
        segment.done = True
        self._progress.done += 1
        self._world.telemetry.stage_done(self._stage.name, 1)

    async def _once(self, lane: _Lane, envelope: Envelope, job: Job) -> None:
        """Run *job*; a second record of the same job waits for the first one instead."""
        first = lane.running.get(job.key)
        if first is not None:
            await asyncio.wait([first])
            return
        mine = asyncio.current_task()
        if mine is not None:
            lane.running[job.key] = mine
        try:
            await self._run(lane, envelope, job)
            self._burial.succeeded(1)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - any failure of a step is a dead letter, never a loss
            await self._burial.bury(envelope, error)
        finally:
            lane.running.pop(job.key, None)
            self._parked.discard(job.key)
            lane.starts.pop(job.key, None)

    async def _run(self, lane: _Lane, envelope: Envelope, job: Job) -> None:
        # Only the policy knows the provider's name of the model: it is waited for before the call.
        policy = await self._policy(job)
        for last in [False] * (job.tries - 1) + [True]:
            if not await self._may_run(lane, job):
                return  # before its body is fetched: what waits holds none in memory
            async with self._room(job):
                body = await self._body(job)
                if not await self._slot(lane, job):
                    return
                try:
                    if body is None or self._world.now() > job.deadline:
                        conclusion = expired(job, self._world.worker, self._world.now())
                        break
                    answer = await self._attempt(lane, envelope, job, body)
                finally:
                    self._calls.release()
            if isinstance(answer, Unanswered) and not last:
                # Whether the call took effect is unknown, so the next one carries the same key.
                await self._end(
                    lane, ended(job, self._world.worker, self._world.now(), "unanswered", 0, answer.code)
                )
                continue
            now = self._world.now()
            conclusion = conclude(job, answer, policy, self._dialect, self._world.worker, now)
            break
        await self._emit(lane, job, conclusion)

    async def _slot(self, lane: _Lane, job: Job) -> bool:
        """Wait for a slot to call *job* in; False, without one, if it turns out to have ended.

        An operator may pause while slots are waited for, and what is paused must not hold one.
        """
        while await self._may_run(lane, job):
            await self._calls.acquire()
            if not self._held(job, self._world.now()):
                return True
            self._calls.release()
        return False

    def _held(self, job: Job, now: int) -> bool:
        """Whether an operator paused calls like that of *job*; one past its deadline calls nobody."""
        return now <= job.deadline and self._world.pauses.call(self.group, job.tenant) is not None

    def _room(self, job: Job) -> AbstractAsyncContextManager[Any]:
        """Return what bounds the bodies in memory that were fetched: inline ones came with their job."""
        return nullcontext() if job.body.claim is None else self._large

    async def _body(self, job: Job) -> bytes | None:
        """Return the job's body, None past its deadline: a store that is away costs no attempt."""
        while self._world.now() <= job.deadline:
            try:
                return await self._world.claims.body_of(job)
            except Unavailable:
                self._world.telemetry.waiting(self._stage.name, "claim store")
                await asyncio.sleep(_LOOK_AGAIN_MS / 1000)
        return None

    async def _kept(self, record: Any) -> Any:
        """Return *record* as it is written; an answer that was paid for waits for room in the claim store."""
        while True:
            try:
                return await self._world.claims.check_in_answer(record)
            except Unavailable:
                self._world.telemetry.waiting(self._stage.name, "claim store")
                await asyncio.sleep(_LOOK_AGAIN_MS / 1000)

    async def _may_run(self, lane: _Lane, job: Job) -> bool:
        """Wait until *job* may be called; False if it turns out to have ended."""
        while True:
            now = self._world.now()
            verdict = lane.ledger.judge(job, now)
            if verdict is SKIP:
                return False
            free_at = self._lane_free_at.get(job.model, 0)
            held = self._held(job, now)
            if verdict is RUN and free_at <= now and not held:
                self._parked.discard(job.key)
                return True
            if held:
                self._parked.add(job.key)
            until = now + _LOOK_AGAIN_MS if held else max(verdict.until, free_at if verdict is RUN else 0)
            await asyncio.sleep(min(max(until - now, 1), _LOOK_AGAIN_MS) / 1000)

    async def _attempt(
        self, lane: _Lane, envelope: Envelope, job: Job, body: bytes
    ) -> HttpReply | Unanswered:
        policy = await self._policy(job)
        record = started(job, self._world.worker, envelope.offset, self._world.now())
        placed: Placed = await (await self._world.outbox.send(emit_for(record)))
        lane.ledger.note(record)
        lane.starts.setdefault(job.key, placed.offset)
        lane.checkpoint(placed)
        call = self._dialect.write(
            body,
            policy.models[job.model].wire_name,
            idempotency_key=job.key,
            request_id=job.request_id.hex(),
            timeout_s=job.call_timeout_ms / 1000,
        )
        try:
            return await self._complete(job.provider, call)
        except CallTimeout:
            return Unanswered("timeout")
        except Unavailable:
            return Unanswered("unavailable")

    async def _policy(self, job: Job) -> Policy:
        while True:
            try:
                return self._world.book[job.policy_hash]
            except PolicyMissing as missing:
                self._world.telemetry.waiting(self._stage.name, "policy")
                await self._world.policies.has(missing.policy_hash, SAY_AGAIN_S)

    async def _emit(self, lane: _Lane, job: Job, conclusion: Conclusion) -> None:
        """Send what the call caused, wait for its acknowledgement, then close the attempt."""
        if conclusion.pause_ms:
            self._lane_free_at[job.model] = self._world.now() + conclusion.pause_ms
        emits = [emit_for(await self._kept(record)) for record in conclusion.emits]
        acks = [await self._world.outbox.send(emit) for emit in emits]
        for ack in acks:
            await ack
        self._world.telemetry.stepped(self._stage.name, emits)
        await self._end(lane, conclusion.ended)

    async def _end(self, lane: _Lane, record: AttemptEnded) -> None:
        placed: Placed = await (await self._world.outbox.send(emit_for(record)))
        lane.ledger.note(record)
        lane.checkpoint(placed)

    def reached(self, tp: TP, position: int) -> None:
        """Let the prefix go over a gap."""
        lane = self._lanes.get(tp[1])
        if lane is not None:
            lane.prefix.reach(position)

    def paused(self) -> frozenset[TP]:
        """Return every partition while as many jobs as allowed are in memory."""
        if len(self._tasks) < self._limits.jobs:
            return frozenset()
        return frozenset((self._stage.source, p) for p in self._lanes)

    def commits(self) -> Mapping[TP, Commit]:
        """Return the completed prefixes that moved, each with the ledger's read-back position."""
        out: dict[TP, Commit] = {}
        for p, lane in self._lanes.items():
            offset = lane.prefix.advance()
            if offset is not None:
                out[self._stage.source, p] = Commit(offset, self._metadata(lane))
        return out

    def _metadata(self, lane: _Lane) -> str:
        self._trim(lane)
        position = min([lane.checkpoints[0][1], *lane.starts.values()])
        return json.dumps({"back": position})

    def _trim(self, lane: _Lane) -> None:
        horizon = self._world.now() - _LEDGER_HORIZON_MS
        while len(lane.checkpoints) > 1 and lane.checkpoints[1][0] < horizon:
            lane.checkpoints.popleft()

    async def tick(self) -> None:
        """Forget checkpoints beyond the horizon, also while no commit moves."""
        for lane in self._lanes.values():
            self._trim(lane)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def progress(self) -> Progress:
        """Return how many jobs are in memory and since when the oldest is."""
        oldest = [lane.prefix.oldest for lane in self._lanes.values() if lane.prefix.oldest is not None]
        self._progress.in_flight = len(self._tasks)
        self._progress.oldest_since = min(oldest, default=None)
        # Whoever waits for a slot is explained by the calls that hold them, a paused tenant's by the pause.
        until = [*(lane.ledger.open_until() for lane in self._lanes.values()), *self._lane_free_at.values()]
        if self._parked:
            until.append(NO_DEADLINE)
        self._progress.heads = {
            p: Head(lane.prefix.oldest, max(until, default=0))
            for p, lane in self._lanes.items()
            if lane.prefix.oldest is not None
        }
        self._progress.waiting_for = "call" if self._tasks else ""
        return self._progress


def _back(metadata: str) -> int:
    try:
        return int(json.loads(metadata)["back"])
    except (ValueError, KeyError, TypeError):
        return 0
