"""Host a provider's worker: jobs under the ledger, with bounded concurrency and lanes that pause."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from agents.errors import PolicyMissing, Unavailable
from agents.gather import NO_DEADLINE
from agents.lanes import BreakerLimits, Lanes
from agents.ledger import LEDGER_LIMIT, RUN, Verdict, ended
from agents.policy import Policy
from agents.ports import Complete
from agents.providers import ProviderConfig
from agents.topology import WorkStage
from agents.turn import Desk, Parking
from agents.work import Conclusion, Unanswered, held_after
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from schemas.job import Job
from streams.log import TP, Commit
from streams.policies import SAY_AGAIN_S
from streams.prefix import Prefix, Segment
from streams.runners import Group, Progress, World
from streams.runners.calling import Asked, Caller
from streams.runners.lease import Lease, LeaseLost, back_from
from streams.vitals import Head

_LOOK_AGAIN_MS = 1000
_LET_GO_S = 5.0
_LARGE_SHARE = 8
"""One of so many calls at once may be of a body that had to be fetched."""


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """Bounds of a provider's worker; see the table in docs/operations.md.

    `concurrency` calls at once, `jobs` in memory (called, parked or waiting), `span` offsets of a
    partition between its oldest unfinished job and its newest, `horizon_ms` of ledger read back, `late`
    calls listened to beyond their timeout (which the client sees to).
    """

    concurrency: int = 64
    jobs: int = 512
    span: int = 10_000
    horizon_ms: int = 15 * 60 * 1000
    parking: Parking = field(default_factory=Parking)
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    region: str = ""
    late: int = 64


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
        self._limits = limits
        self._desk = Desk(world.worker, limits.region, Lanes(limits.breaker), limits.parking)
        self._caller = Caller(stage, world, complete, dialect, self._desk)
        self._calls = asyncio.Semaphore(limits.concurrency)
        self._large = asyncio.Semaphore(max(1, limits.concurrency // _LARGE_SHARE))
        self._leases: dict[int, Lease] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waits: dict[str, int] = {}  # jobs that wait, each for a reason that holds until then (ms)
        self._progress = Progress()
        self._draining = False
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
            back = max(back_from(commit.metadata), (await self._world.log.begins([own]))[own])
            lease = Lease(self._world, self._desk, own, Prefix(commit.offset), self._limits.horizon_ms)
            await lease.take_over(back)
            self._leases[tp[1]] = lease

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Let the partitions go. Calls under way go on: their ends reach the new owner by the ledger."""
        gone = [lease for _, p in partitions if (lease := self._leases.pop(p, None)) is not None]
        await asyncio.gather(*(lease.let_go(_LET_GO_S) for lease in gone))

    async def process(self, tp: TP, batch: Sequence[Envelope]) -> None:
        """Start a task per job; `paused` keeps their number bounded."""
        lease = self._leases.get(tp[1])
        if lease is None or not lease.alive:
            return
        for envelope in batch:
            segment = lease.prefix.begin(envelope.offset, envelope.offset + 1, self._world.now())
            task = asyncio.create_task(self._job(lease, segment, envelope))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._world.telemetry.fatal(self._stage.name, task.exception())

    async def _job(self, lease: Lease, segment: Segment, envelope: Envelope) -> None:
        try:
            job: Job = self._world.codec.decode_as(Job, envelope.value)
        except UndecodableError as error:
            await self._burial.bury(envelope, error)
        else:
            try:
                await self._once(lease, envelope, job)
            except LeaseLost:
                return
        segment.done = True
        self._progress.done += 1
        self._world.telemetry.stage_done(self._stage.name, 1)

    async def _once(self, lease: Lease, envelope: Envelope, job: Job) -> None:
        """Run *job*; a second record of the same job waits for the first one instead."""
        first = lease.running.get(job.key)
        if first is not None:
            await asyncio.wait([first])
            return
        mine = asyncio.current_task()
        if mine is not None:
            lease.running[job.key] = mine
        try:
            await self._run(lease, envelope, job)
            self._burial.succeeded(1)
        except (Unavailable, LeaseLost):
            raise
        except Exception as error:  # noqa: BLE001 - any failure of a step is a dead letter, never a loss
            await self._burial.bury(envelope, error)
        finally:
            lease.running.pop(job.key, None)
            self._waits.pop(job.key, None)
            self._desk.forget(job)

    async def _run(self, lease: Lease, envelope: Envelope, job: Job) -> None:
        # Only the policy knows the provider's name of the model: it is waited for before the call.
        policy = await self._policy(job)
        for tried in range(job.tries):
            last = tried == job.tries - 1
            outcome = await self._turn(lease, Asked(job, envelope.offset, policy), last=last)
            if isinstance(outcome, Verdict):
                await self._caller.write_again(lease, job, outcome.following)
                return
            if isinstance(outcome, Conclusion):
                await self._caller.write(lease, job, outcome)
                return
            # Whether the call took effect is unknown, so the next one carries the same key.
            now = self._world.now()
            await lease.end(ended(job, self._world.worker, now, "unanswered", (0, outcome.code)))
            job = held_after(job, outcome.code, now, tried=tried)

    async def _turn(self, lease: Lease, asked: Asked, *, last: bool) -> Verdict | Conclusion | Unanswered:
        """Wait until the job may be called, and call it; or return what is to be done instead.

        What was true before a call slot became free is judged again: its lane may have paused meanwhile.
        """
        while True:
            verdict = self._judged(lease, asked)
            if verdict is RUN:
                # Its body is fetched only now: what waits holds none in memory.
                async with self._room(asked.job):
                    body = await self._body(asked.job)
                    if body is None:
                        continue
                    async with self._calls:
                        verdict = self._judged(lease, asked)
                        if verdict is RUN:
                            return await self._caller.call(lease, replace(asked, body=body), last=last)
            if isinstance(verdict, Conclusion) or verdict.action == "skip":
                return verdict
            if self._draining:
                raise LeaseLost
            self._waits[asked.job.key] = verdict.until
            left = verdict.until - self._world.now()
            await asyncio.sleep(min(max(left, 1), _LOOK_AGAIN_MS) / 1000)
            self._waits.pop(asked.job.key, None)
            if self._draining:
                raise LeaseLost

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

    def _judged(self, lease: Lease, asked: Asked) -> Verdict | Conclusion:
        if not lease.alive:
            raise LeaseLost
        now = self._world.now()
        verdict = self._desk.judge(lease.ledger, asked.job, asked.policy, now)
        held = verdict is RUN and now <= asked.job.deadline
        if held and self._world.pauses.call(self.group, asked.job.tenant) is not None:
            return Verdict("wait", NO_DEADLINE)
        return verdict

    async def _policy(self, job: Job) -> Policy:
        while True:
            try:
                return self._world.book[job.policy_hash]
            except PolicyMissing as missing:
                self._world.telemetry.waiting(self._stage.name, "policy")
                await self._world.policies.has(missing.policy_hash, SAY_AGAIN_S)

    def reached(self, tp: TP, position: int) -> None:
        """Let the prefix go over a gap."""
        lease = self._leases.get(tp[1])
        if lease is not None:
            lease.prefix.reach(position)

    def paused(self) -> frozenset[TP]:
        """Return every partition while memory holds as many jobs as allowed, and those of too long a span."""
        full = len(self._tasks) >= self._limits.jobs
        return frozenset(
            (self._stage.source, p)
            for p, lease in self._leases.items()
            if full or lease.prefix.width >= self._limits.span
        )

    def commits(self) -> Mapping[TP, Commit]:
        """Return the completed prefixes that moved, each with the ledger's read-back position."""
        moved = ((p, lease.commit()) for p, lease in self._leases.items())
        return {(self._stage.source, p): commit for p, commit in moved if commit is not None}

    async def tick(self) -> None:
        """Forget checkpoints beyond the horizon, also while no commit moves."""
        for lease in self._leases.values():
            lease.trim()

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls under way and for late answers, not for jobs that may not be called yet.

        Those are not begun meanwhile, and nothing is afterwards: a call that the end of the process cuts
        off is a call that its next life must make again.
        """
        self._draining = True
        idle = {t for lease in self._leases.values() for k, t in lease.running.items() if k in self._waits}
        waited = {*self._tasks, *self._caller.late} - idle
        if waited:
            await asyncio.wait(waited, timeout=timeout_s)
        for lease in self._leases.values():
            lease.alive = False

    def progress(self) -> Progress:
        """Return how many jobs are in memory and since when the oldest is."""
        oldest = [lease.prefix.oldest for lease in self._leases.values() if lease.prefix.oldest is not None]
        self._progress.in_flight = len(self._tasks)
        self._progress.oldest_since = min(oldest, default=None)
        # Whoever waits for a slot is explained by the calls that hold them.
        until = [*(lease.ledger.open_until() for lease in self._leases.values()), *self._waits.values()]
        self._progress.lanes = self._lanes_out()
        self._progress.details = {"waiting": len(self._waits)}
        self._progress.heads = {
            p: Head(lease.prefix.oldest, max(until, default=0))
            for p, lease in self._leases.items()
            if lease.prefix.oldest is not None
        }
        self._progress.waiting_for = "call" if self._tasks else ""
        self._progress.buffers = self._buffers()
        return self._progress

    def _lanes_out(self) -> Mapping[str, int]:
        """Return until when (ms) each model's lane is out, and measure them."""
        now, lanes = self._world.now(), self._desk.lanes
        states = lanes.states(now)
        shown = [(lane.model, lane.region, state) for lane, state in states]
        self._world.telemetry.lanes(self._stage.provider, shown)
        return {lane.model: lanes.free_at(lane, now) for lane, _ in states}

    def _buffers(self) -> Mapping[str, tuple[int, int]]:
        limits, leases = self._limits, self._leases.values()
        return {
            "jobs": (len(self._tasks), limits.jobs),
            "calls": (self._caller.calling, limits.concurrency),
            "parked": (len(self._desk.parked), limits.parking.room),
            "late": (len(self._caller.late), limits.late),
            "span": (max((lease.prefix.width for lease in leases), default=0), limits.span),
            "ledger": (max((len(lease.ledger) for lease in leases), default=0), LEDGER_LIMIT),
        }
