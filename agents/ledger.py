"""What is known of the attempts at the jobs of one partition, and what that says about a job now.

The partition is the lease: a start is acknowledged before the call, an end after the Completion and
Result that the call caused and before the job that follows. So a start without an end may still be
a call under way, and an end names exactly the job that must exist.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from schemas.job import AttemptEnded, AttemptStarted, Following, Job

GRACE_MS = 500
"""How long after its timeout a call is taken to be over, for clocks that differ and answers on their way."""

HORIZON_MS = 24 * 3600 * 1000
"""Behind it a job of the same id is a new one: its request was admitted again, which is legitimate."""

LEDGER_LIMIT = 100_000
"""How many ended attempts of a partition are remembered."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about a job now: run it, wait until `until` (ms), or skip it.

    A job to skip has ended; `following`, if any, must be written again, since nobody knows whether
    whoever wrote the end still came to it. Copies collapse by their job id.
    """

    action: Literal["run", "wait", "skip"]
    until: int = 0
    following: Following | None = None


RUN = Verdict("run")


class Ledger:
    """The attempts of one partition, read back on assignment and then kept up; bounded.

    At most *limit* ended attempts are remembered, the latest; of the open ones all are.
    """

    def __init__(self, limit: int = LEDGER_LIMIT) -> None:
        self._limit = limit
        self._open: dict[str, int] = {}
        self._ended: OrderedDict[str, tuple[int, Following | None]] = OrderedDict()
        self._answered: OrderedDict[tuple[bytes, int, int], None] = OrderedDict()

    def note(self, record: AttemptStarted | AttemptEnded, placed_at: int = 0) -> None:
        """Note a record of the ledger's topic, in its order; *placed_at* is the log's own timestamp (ms).

        A call begins once its start is in the log, which an outage may put long after the worker wrote it.
        """
        if isinstance(record, AttemptStarted):
            over = max(record.started_at, placed_at) + record.call_timeout_ms + GRACE_MS
            self._open[record.key] = over
            return
        self._open.pop(record.key, None)
        if record.outcome == "unanswered":
            return  # the same key will be called again
        known = self._ended.get(record.key)
        if known is not None and record.ended_at - known[0] > HORIZON_MS:
            del self._ended[record.key]
        self._ended.setdefault(record.key, (record.ended_at, record.following))
        if len(self._ended) > self._limit:
            self._ended.popitem(last=False)

    def followed(self, job: Job) -> None:
        """Note that what follows *job* is acknowledged: it need not be written again."""
        if job.key in self._ended:
            self._ended[job.key] = (self._ended[job.key][0], None)

    def answer_came_late(self, job: Job) -> None:
        """Note that the answer to *job* came after its timeout and is delivered."""
        self._answered[_step_of(job)] = None
        if len(self._answered) > self._limit:
            self._answered.popitem(last=False)

    def is_answered(self, job: Job) -> bool:
        """Tell whether an attempt at the same step of the same request was answered late."""
        return _step_of(job) in self._answered

    def judge(self, job: Job, now: int) -> Verdict:
        """Return what to do about *job* at *now* (ms).

        An open start is waited for whoever wrote it: a worker that was restarted under its name, or that
        got its partition back by a rebalance, must not call beside its own earlier call.
        """
        known = self._ended.get(job.key)
        if known is not None and now - known[0] <= HORIZON_MS:
            return Verdict("skip", following=known[1])
        if job.key in self._open:
            until = self._open[job.key]
            if now < until:
                return Verdict("wait", until)
        return RUN if now >= job.not_before else Verdict("wait", job.not_before)

    def is_open(self, job: Job) -> bool:
        """Tell whether a call of *job* was started and not ended."""
        return job.key in self._open

    def open_until(self) -> int:
        """Return when (ms) the last open start times out; 0 where none is open."""
        return max(self._open.values(), default=0)

    def __len__(self) -> int:
        """Return how many attempts are remembered."""
        return len(self._open) + len(self._ended)


def _step_of(job: Job) -> tuple[bytes, int, int]:
    return job.request_id, job.step, job.branch


def started(job: Job, worker: str, offset: int, now: int) -> AttemptStarted:
    """Return the entry that must be acknowledged before the call of *job*, read at *offset*, is made."""
    return AttemptStarted(
        job.request_id,
        job.origin,
        job.step,
        job.branch,
        job.attempt,
        job.provider,
        job.model,
        worker,
        now,
        job.call_timeout_ms,
        offset,
    )


def ended(job: Job, worker: str, now: int, outcome: str, answer: tuple[int, str] = (0, "")) -> AttemptEnded:
    """Return the entry that closes an attempt; *answer* is the status (0 for none) and the failure's code."""
    status, code = answer
    return AttemptEnded(
        job.request_id,
        job.origin,
        job.step,
        job.branch,
        job.attempt,
        job.provider,
        job.model,
        worker,
        now,
        outcome,
        status,
        code,
    )
