"""A provider's stage under the fold: jobs under the ledger, calls through the port, no concurrency.

All jobs that may be called at a moment are called before any answer is acted on, as a worker with
room for all of them would.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agents.content import at_hand
from agents.errors import CallTimeout, Unavailable
from agents.ledger import RUN, Ledger, Verdict, ended, started
from agents.policy import Policy
from agents.ports import Complete, HttpReply
from agents.providers import ProviderConfig
from agents.retry import parked
from agents.topology import WorkStage, emit_for
from agents.turn import Desk
from agents.work import Conclusion, Unanswered, conclude, held_after, job_after, late
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from schemas.job import AttemptEnded, AttemptStarted, Job

if TYPE_CHECKING:
    from replay.fold import FoldWorld

_BATCH = 500

Answer = HttpReply | Unanswered | Exception


@dataclass(slots=True)
class _Task:
    """A job that is not done, how often it may still go unanswered, and whether it probes its lane."""

    envelope: Envelope
    job: Job
    tries: int
    probe: bool = False


@dataclass(slots=True)
class _Lease:
    """One partition: how far jobs and ledger were read, and what is not done."""

    ledger: Ledger = field(default_factory=Ledger)
    jobs_read: int = 0
    ledger_read: int = 0
    waiting: dict[str, _Task] = field(default_factory=dict)


class WorkFold:
    """A `WorkStage` under the fold."""

    def __init__(
        self, stage: WorkStage, world: FoldWorld, complete: Complete, dialect: ProviderConfig, desk: Desk
    ) -> None:
        self._stage = stage
        self._world = world
        self._complete = complete
        self._dialect = dialect
        self._desk = desk
        self._leases = [_Lease() for _ in range(world.shelf.partitions(stage.source))]
        self._late: list[tuple[_Lease, Job, Awaitable[HttpReply]]] = []

    async def step(self) -> bool:
        """Take jobs in, call what may be called, act on the answers; tell whether anything was done."""
        moved = await self._take_late()
        for p, lease in enumerate(self._leases):
            moved |= self._take(p, lease)
        calls: list[tuple[_Lease, _Task, Answer]] = []
        for p, lease in enumerate(self._leases):
            for task, verdict in self._judged(p, lease):
                moved = True
                if verdict is RUN:
                    task.probe = self._desk.lanes.begin(self._desk.lane(task.job))
                    calls.append((lease, task, await self._call(lease, task)))
                else:
                    self._close(lease, task, verdict)
        for lease, task, answer in calls:
            self._act(lease, task, answer)
        return moved

    def due(self) -> int | None:
        """Return when (ms) the next waiting job may go on."""
        now = self._world.clock.now
        times = [
            verdict.until
            for lease in self._leases
            for task in lease.waiting.values()
            if task.job.policy_hash in self._world.book
            and isinstance(verdict := self._verdict(lease, task), Verdict)
        ]
        return min((t for t in times if t > now), default=None)

    def _verdict(self, lease: _Lease, task: _Task) -> Verdict | Conclusion:
        return self._desk.judge(lease.ledger, task.job, self._policy(task.job), self._world.clock.now)

    def _take(self, p: int, lease: _Lease) -> bool:
        jobs = self._world.shelf.after((self._stage.source, p), lease.jobs_read, _BATCH)
        for envelope in jobs:
            lease.jobs_read = envelope.offset + 1
            try:
                job: Job = self._world.codec.decode_as(Job, envelope.value)
            except UndecodableError as error:
                self._world.bury(self._stage.name, envelope, error)
                continue
            # A second record of a job that is not done waits for the first one's end: nothing to do.
            lease.waiting.setdefault(job.key, _Task(envelope, job, job.tries))
        return bool(jobs)

    def _catch_up(self, p: int, lease: _Lease) -> None:
        """Note what the ledger's topic holds: what was recorded, and what this stage wrote."""
        while found := self._world.shelf.after((self._stage.ledger, p), lease.ledger_read, _BATCH):
            for envelope in found:
                lease.ledger_read = envelope.offset + 1
                try:
                    record = self._world.codec.decode(envelope.value)
                except UndecodableError:
                    continue
                if isinstance(record, AttemptStarted | AttemptEnded):
                    lease.ledger.note(record, envelope.timestamp)
                if isinstance(record, AttemptEnded):
                    self._desk.learn(record, self._world.clock.now)

    def _judged(self, p: int, lease: _Lease) -> Iterator[tuple[_Task, Verdict | Conclusion]]:
        """Iterate over the jobs that need not wait, each with what to do about it."""
        self._catch_up(p, lease)
        for task in list(lease.waiting.values()):
            if task.job.policy_hash not in self._world.book:
                continue
            verdict = self._verdict(lease, task)
            if isinstance(verdict, Conclusion) or verdict.action != "wait":
                yield task, verdict

    def _close(self, lease: _Lease, task: _Task, verdict: Verdict | Conclusion) -> None:
        """End a job without a call."""
        job = task.job
        self._done(lease, job)
        if isinstance(verdict, Conclusion):
            self._write(lease, job, verdict)
        elif verdict.following is not None:
            self._hand_on(lease, job, job_after(job, verdict.following), "written_again")

    def _done(self, lease: _Lease, job: Job) -> None:
        del lease.waiting[job.key]
        self._desk.forget(job)

    async def _call(self, lease: _Lease, task: _Task) -> Answer:
        """Return the answer to a call, or what could not even be asked."""
        job, now = task.job, self._world.clock.now
        try:
            body = at_hand(job.body)
            self._world.emit(emit_for(started(job, self._desk.worker, task.envelope.offset, now)))
            call = self._dialect.write(
                body,
                self._policy(job).models[job.model].wire_name,
                idempotency_key=job.key,
                request_id=job.request_id.hex(),
                timeout_s=job.call_timeout_ms / 1000,
            )
            return await self._complete(job.provider, call)
        except CallTimeout as timeout:
            if timeout.late is not None:
                self._late.append((lease, job, timeout.late))
            return Unanswered("timeout")
        except Unavailable:
            return Unanswered("unavailable")
        except Exception as error:  # noqa: BLE001 - as in the host: a failure of a step is a dead letter
            return error

    async def _take_late(self) -> bool:
        """Act on answers that came after their timeout."""
        waiting, self._late = self._late, []
        for lease, job, answer in waiting:
            if not _is_done(answer):
                self._late.append((lease, job, answer))
                continue
            try:
                reply = await answer
            except Unavailable:
                continue
            records = late(job, reply, self._policy(job), self._dialect, self._world.clock.now)
            for record in records:
                self._world.emit(emit_for(record))
            if len(records) > 1:
                lease.ledger.answer_came_late(job)
        return len(waiting) > len(self._late)

    def _policy(self, job: Job) -> Policy:
        return self._world.book[job.policy_hash]

    def _act(self, lease: _Lease, task: _Task, answer: Answer) -> None:
        job, now = task.job, self._world.clock.now
        if isinstance(answer, Unanswered) and task.tries > 1:
            self._try_again(task, answer)
            return
        self._done(lease, job)
        code, took_ms = "not_called", 0.0
        try:
            if isinstance(answer, Exception):
                raise answer  # noqa: TRY301 - one way for every failure of a step
            took_ms = answer.elapsed_s * 1000 if isinstance(answer, HttpReply) else 0.0
            conclusion = conclude(job, answer, self._policy(job), self._dialect, self._desk.worker, now)
        except Exception as error:  # noqa: BLE001 - as in the host: a failure of a step is a dead letter
            self._world.bury(self._stage.name, task.envelope, error)
        else:
            code = conclusion.ended.code
            self._write(lease, job, self._desk.stamped(conclusion, now))
        self._desk.called(job, code, took_ms, now, probe=task.probe)

    def _try_again(self, task: _Task, answer: Unanswered) -> None:
        job, now = task.job, self._world.clock.now
        self._desk.called(job, f"provider_{answer.code}", 0.0, now, probe=task.probe)
        self._world.emit(emit_for(ended(job, self._desk.worker, now, "unanswered", (0, answer.code))))
        task.job = held_after(job, answer.code, now, tried=job.tries - task.tries)
        task.tries -= 1

    def _write(self, lease: _Lease, job: Job, conclusion: Conclusion) -> None:
        for record in (*conclusion.emits, conclusion.ended):
            self._world.emit(emit_for(record))
        if conclusion.job is not None:
            self._hand_on(lease, job, conclusion.job, conclusion.ended.code)

    def _hand_on(self, lease: _Lease, job: Job, following: Job, code: str) -> None:
        """Write *following* to its provider's topic, or to the tier that it waits in."""
        emit = emit_for(following)
        value = self._world.codec.encode(following)
        now = self._world.clock.now
        self._world.emit(parked(emit, value, (), now, self._stage.name, code) or emit)
        lease.ledger.followed(job)


def _is_done(answer: object) -> bool:
    return not isinstance(answer, Future) or answer.done()
