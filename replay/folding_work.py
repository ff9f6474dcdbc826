"""A provider's stage under the fold: jobs under the ledger, calls through the port, no concurrency.

All jobs that may be called at a moment are called before any answer is acted on, as a worker with
room for all of them would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agents.content import at_hand
from agents.errors import CallTimeout, Unavailable
from agents.policy import Policy
from agents.ports import Complete, HttpReply
from agents.providers import ProviderConfig
from agents.topology import WorkStage, emit_for
from agents.work import RUN, SKIP, Conclusion, Ledger, Unanswered, conclude, ended, expired, started
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from schemas.job import AttemptEnded, AttemptStarted, Job

if TYPE_CHECKING:
    from replay.fold import FoldWorld

_BATCH = 500


@dataclass(slots=True)
class _Task:
    """A job that is not done, and how often it may still go unanswered."""

    envelope: Envelope
    job: Job
    tries: int


@dataclass(slots=True)
class _Lane:
    """One partition: how far jobs and ledger were read, and what is not done."""

    ledger: Ledger = field(default_factory=Ledger)
    jobs_read: int = 0
    ledger_read: int = 0
    waiting: dict[str, _Task] = field(default_factory=dict)


class WorkFold:
    """A `WorkStage` under the fold."""

    def __init__(
        self, stage: WorkStage, world: FoldWorld, complete: Complete, dialect: ProviderConfig, worker: str
    ) -> None:
        self._stage = stage
        self._world = world
        self._complete = complete
        self._dialect = dialect
        self._worker = worker
        self._lanes = [_Lane() for _ in range(world.shelf.partitions(stage.source))]
        self._free_at: dict[str, int] = {}

    async def step(self) -> bool:
        """Take jobs in, call what may be called, act on the answers; tell whether anything was done."""
        moved = False
        for p, lane in enumerate(self._lanes):
            moved |= self._take(p, lane)
        calls = [(lane, task) for p, lane in enumerate(self._lanes) for task in self._callable(p, lane)]
        answers = [await self._call(task) for _, task in calls]
        for (lane, task), answer in zip(calls, answers, strict=True):
            self._act(lane, task, answer)
        return moved or bool(calls)

    def due(self) -> int | None:
        """Return when (ms) the next waiting job may go on."""
        now = self._world.clock.now
        times = [self._until(lane, t.job) for lane in self._lanes for t in lane.waiting.values()]
        return min((t for t in times if t > now), default=None)

    def _take(self, p: int, lane: _Lane) -> bool:
        jobs = self._world.shelf.after((self._stage.source, p), lane.jobs_read, _BATCH)
        for envelope in jobs:
            lane.jobs_read = envelope.offset + 1
            try:
                job: Job = self._world.codec.decode_as(Job, envelope.value)
            except UndecodableError as error:
                self._world.bury(self._stage.name, envelope, error)
                continue
            # A second record of a job that is not done waits for the first one's end: nothing to do.
            lane.waiting.setdefault(job.key, _Task(envelope, job, job.tries))
        return bool(jobs)

    def _catch_up(self, p: int, lane: _Lane) -> None:
        """Note what the ledger's topic holds: what was recorded, and what this stage wrote."""
        while found := self._world.shelf.after((self._stage.ledger, p), lane.ledger_read, _BATCH):
            for envelope in found:
                lane.ledger_read = envelope.offset + 1
                try:
                    record = self._world.codec.decode(envelope.value)
                except UndecodableError:
                    continue
                if isinstance(record, AttemptStarted | AttemptEnded):
                    lane.ledger.note(record)

    def _callable(self, p: int, lane: _Lane) -> Iterator[_Task]:
        self._catch_up(p, lane)
        for key, task in list(lane.waiting.items()):
            if task.job.policy_hash not in self._world.book:
                continue
            if lane.ledger.judge(task.job, self._world.clock.now) is SKIP:
                del lane.waiting[key]
            elif self._until(lane, task.job) <= self._world.clock.now:
                yield task

    def _until(self, lane: _Lane, job: Job) -> int:
        now = self._world.clock.now
        verdict = lane.ledger.judge(job, now)
        return max(verdict.until, self._free_at.get(job.model, 0) if verdict is RUN else 0)

    async def _call(self, task: _Task) -> HttpReply | Unanswered | Exception | None:
        """Return the answer to a call, None past the deadline, or what could not even be asked."""
        job, now = task.job, self._world.clock.now
        if now > job.deadline:
            return None
        try:
            body = at_hand(job.body)
            self._world.emit(emit_for(started(job, self._worker, task.envelope.offset, now)))
            call = self._dialect.write(
                body,
                self._policy(job).models[job.model].wire_name,
                idempotency_key=job.key,
                request_id=job.request_id.hex(),
                timeout_s=job.call_timeout_ms / 1000,
            )
            return await self._complete(job.provider, call)
        except CallTimeout:
            return Unanswered("timeout")
        except Unavailable:
            return Unanswered("unavailable")
        except Exception as error:  # noqa: BLE001 - as in the host: a failure of a step is a dead letter
            return error

    def _policy(self, job: Job) -> Policy:
        return self._world.book[job.policy_hash]

    def _act(self, lane: _Lane, task: _Task, answer: HttpReply | Unanswered | Exception | None) -> None:
        job, now = task.job, self._world.clock.now
        if isinstance(answer, Unanswered) and task.tries > 1:
            task.tries -= 1
            self._world.emit(emit_for(ended(job, self._worker, now, "unanswered", 0, answer.code)))
            return
        del lane.waiting[job.key]
        if isinstance(answer, Exception):
            self._world.bury(self._stage.name, task.envelope, answer)
            return
        try:
            conclusion = self._concluded(job, answer)
        except Exception as error:  # noqa: BLE001 - as in the host: a failure of a step is a dead letter
            self._world.bury(self._stage.name, task.envelope, error)
            return
        if conclusion.pause_ms:
            self._free_at[job.model] = now + conclusion.pause_ms
        for record in (*conclusion.emits, conclusion.ended):
            self._world.emit(emit_for(record))

    def _concluded(self, job: Job, answer: HttpReply | Unanswered | None) -> Conclusion:
        now = self._world.clock.now
        if answer is None:
            return expired(job, self._worker, now)
        return conclude(job, answer, self._policy(job), self._dialect, self._worker, now)
