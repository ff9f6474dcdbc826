"""Work for a provider, and the ledger of what was tried."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.decision import PlanStep
from schemas.identity import Origin, job_key
from schemas.sealed import Body
from schemas.shape import Id16


@dataclass(frozen=True, slots=True)
class Job:
    """One call to make. Its id is (request, step, branch, attempt); times are ms since the epoch."""

    request_id: Id16
    origin: Origin
    step: int
    branch: int
    attempt: int
    provider: str
    model: str
    plan: tuple[PlanStep, ...]
    plan_index: int
    tries: int
    decision: str
    body: Body
    endpoint: str
    call_timeout_ms: int
    not_before: int
    deadline: int
    accepted_at: int
    policy_hash: str
    recipe: str
    tenant: str
    run: str = ""
    custom_id: str | None = None
    line: int | None = None
    priority: int = 0

    @property
    def key(self) -> str:
        """Return the job id, which is the idempotency key of its call."""
        return job_key(self.request_id, self.step, self.branch, self.attempt)


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A worker is about to call; acknowledged by the broker before the call is made."""

    request_id: Id16
    origin: Origin
    step: int
    branch: int
    attempt: int
    provider: str
    model: str
    worker: str
    started_at: int
    call_timeout_ms: int
    job_offset: int

    @property
    def key(self) -> str:
        """Return the id of the job that was started."""
        return job_key(self.request_id, self.step, self.branch, self.attempt)


@dataclass(frozen=True, slots=True)
class Following:
    """The one job that follows an attempt, as far as it differs from the attempt's own job."""

    attempt: int
    plan_index: int
    provider: str
    model: str
    tries: int
    call_timeout_ms: int
    not_before: int


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt ended; `outcome` is ok, retry, advance, parked, error, or unanswered (same key again).

    Completion and Result are acknowledged before it is written. The job that follows is written after
    it, so whoever reads the end can write exactly that job again. Calls of its lane, which is provider,
    model and `region`, must wait until `lane_until` (ms; 0 for none).
    """

    request_id: Id16
    origin: Origin
    step: int
    branch: int
    attempt: int
    provider: str
    model: str
    worker: str
    ended_at: int
    outcome: str
    status: int
    code: str
    following: Following | None = None
    lane_until: int = 0
    region: str = ""

    @property
    def key(self) -> str:
        """Return the id of the job that ended."""
        return job_key(self.request_id, self.step, self.branch, self.attempt)
