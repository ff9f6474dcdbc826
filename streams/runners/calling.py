"""Make the call of one job under its lease, and write what it caused in the order that a crash can bear."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from agents.errors import CallTimeout, Unavailable
from agents.policy import Policy
from agents.ports import Complete, HttpCall, HttpReply
from agents.providers import ProviderConfig
from agents.retry import parked
from agents.topology import WorkStage, emit_for
from agents.turn import Desk
from agents.work import Conclusion, Unanswered, conclude, job_after, late
from schemas.completion import Completion, Result
from schemas.job import Following, Job
from streams.runners import World
from streams.runners.lease import Lease

_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as it is called: where it was read, under which policy, and its body once it is at hand."""

    job: Job
    offset: int
    policy: Policy
    body: bytes = b""


class Caller:
    """Calls one provider. Answers that come after their timeout are waited for beside everything else."""

    def __init__(
        self, stage: WorkStage, world: World, complete: Complete, dialect: ProviderConfig, desk: Desk
    ) -> None:
        self._stage = stage
        self._world = world
        self._complete = complete
        self._dialect = dialect
        self._desk = desk
        self.late: set[asyncio.Task[None]] = set()
        self.calling = 0

    async def call(self, lease: Lease, asked: Asked, *, last: bool) -> Conclusion | Unanswered:
        """Call, the start acknowledged before; return what the answer causes.

        `Unanswered` is returned unless this is the *last* try under the key, which an end concludes. The
        call's time is counted from before its start was written. Raises `LeaseLost` where it may not be
        made any more.
        """
        job = asked.job
        probe = self._desk.lanes.begin(self._desk.lane(job))
        code, took_ms = "not_called", 0.0
        self.calling += 1
        try:
            waited_ms = await lease.start(job, asked.offset)
            answer = await self._answer(lease, asked, job.call_timeout_ms - waited_ms)
            if isinstance(answer, Unanswered):
                code = f"provider_{answer.code}"
                if not last:
                    return answer
            else:
                took_ms = answer.elapsed_s * 1000
            now = self._world.now()
            conclusion = conclude(job, answer, asked.policy, self._dialect, self._world.worker, now)
            code = conclusion.ended.code
            return self._desk.stamped(conclusion, now)
        finally:
            self.calling -= 1
            self._desk.called(job, code, took_ms, self._world.now(), probe=probe)

    async def _answer(self, lease: Lease, asked: Asked, timeout_ms: int) -> HttpReply | Unanswered:
        try:
            return await self._complete(asked.job.provider, self._written(asked, timeout_ms))
        except CallTimeout as timeout:
            if timeout.late is not None:
                task = asyncio.create_task(self._await_late(lease, asked, timeout.late))
                self.late.add(task)
                task.add_done_callback(self._late_done)
            return Unanswered("timeout")
        except Unavailable:
            return Unanswered("unavailable")

    def _written(self, asked: Asked, timeout_ms: int) -> HttpCall:
        job = asked.job
        return self._dialect.write(
            asked.body,
            asked.policy.models[job.model].wire_name,
            idempotency_key=job.key,
            request_id=job.request_id.hex(),
            timeout_s=timeout_ms / 1000,
        )

    async def _await_late(self, lease: Lease, asked: Asked, answer: Awaitable[HttpReply]) -> None:
        try:
            reply = await answer
        except Unavailable:
            return  # it never came: the attempt has gone on without it
        records = late(asked.job, reply, asked.policy, self._dialect, self._world.now())
        await self._send(records)
        if len(records) > 1:
            lease.ledger.answer_came_late(asked.job)

    def _late_done(self, task: asyncio.Task[None]) -> None:
        self.late.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._world.telemetry.fatal(self._stage.name, task.exception())

    async def write(self, lease: Lease, job: Job, conclusion: Conclusion) -> None:
        """Write what an attempt caused, its end, and the job that follows, each acknowledged in turn."""
        await self._send(conclusion.emits)
        await lease.end(conclusion.ended)
        if conclusion.job is not None:
            await self._hand_on(lease, job, conclusion.job, conclusion.ended.code)

    async def _send(self, records: Sequence[Completion | Result]) -> None:
        emits = [emit_for(await self._kept(record)) for record in records]
        acks = [await self._world.outbox.send(emit) for emit in emits]
        for ack in acks:
            await ack
        self._world.telemetry.stepped(self._stage.name, emits)

    async def _kept(self, record: Completion | Result) -> Completion | Result:
        """Return *record* as it is written; an answer that was paid for waits for room in the claim store."""
        while True:
            try:
                kept: Completion | Result = await self._world.claims.check_in_answer(record)
            except Unavailable:
                self._world.telemetry.waiting(self._stage.name, "claim store")
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                return kept

    async def write_again(self, lease: Lease, job: Job, following: Following | None) -> None:
        """Write the job that follows *job* again, if nobody knows whether it was written."""
        if following is not None:
            await self._hand_on(lease, job, job_after(job, following), "written_again")

    async def _hand_on(self, lease: Lease, job: Job, following: Job, code: str) -> None:
        """Write *following* to its provider's topic, or to the tier that it waits in."""
        world = self._world
        emit = emit_for(following)
        value, headers = world.outbox.pack(emit)
        waiting = parked(emit, value, headers, world.now(), self._stage.name, code)
        if waiting is None:
            ack = await world.outbox.send_packed((emit.topic, emit.partition), emit.key, value, headers)
        else:
            ack = await world.outbox.send(waiting)
        await ack
        lease.ledger.followed(job)
        world.telemetry.stepped(self._stage.name, [emit])
