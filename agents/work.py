"""What a provider worker does about one job, without doing it: verdicts, records, next attempts.

The partition is the lease: a start is acknowledged before the call, an end comes after all that
the call caused. A start without an end is called again only after its call timeout, with the
same key; an answered error makes a new attempt with a new key.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from agents.draw import unit
from agents.policy import Policy
from agents.ports import HttpReply
from agents.providers import ProviderConfig, Reply
from schemas.completion import Completion, Result
from schemas.identity import job_key
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.sealed import seal_plainly

GRACE_MS = 500
_BACKOFF_MS = 250
_BACKOFF_MAX_MS = 30_000
_RETRY_AFTER_MAX_S = 3600.0
_FIRST_ERROR = 400
_BAD_GATEWAY = 502
RATE_LIMITED = 429


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about a job now: run it, skip it (it ended), or look again at `until` (ms)."""

    action: str
    until: int = 0


RUN, SKIP = Verdict("run"), Verdict("skip")


class Ledger:
    """What is known of the attempts of one partition; read back on assignment, then kept up."""

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._open: dict[str, AttemptStarted] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    def note(self, record: AttemptStarted | AttemptEnded) -> None:
        """Note a record of the ledger's topic, in its order."""
        if isinstance(record, AttemptStarted):
            self._open[record.key] = record
            return
        self._open.pop(record.key, None)
        if record.outcome == "unanswered":
            return  # the same key will be called again
        self._ended[record.key] = None
        if len(self._ended) > self._limit:
            self._ended.popitem(last=False)

    def follows(self, job: Job) -> None:
        """Note that *job* exists: only an attempt that ended causes the next one.

        A worker may die after it wrote *job* and before it could write that the attempt before ended.
        """
        for attempt in range(job.attempt):
            key = job_key(job.request_id, job.step, job.branch, attempt)
            if self._open.pop(key, None) is not None:
                self._ended[key] = None

    def judge(self, job: Job, now: int) -> Verdict:
        """Return what to do about *job* at *now* (ms).

        An open start is waited for whoever wrote it: a worker that was restarted under its name, or that
        got its partition back by a rebalance, must not call beside its own earlier call.
        """
        self.follows(job)
        if job.key in self._ended:
            return SKIP
        started = self._open.get(job.key)
        if started is not None:
            until = started.started_at + started.call_timeout_ms + GRACE_MS
            if now < until:
                return Verdict("wait", until)
        return RUN if now >= job.not_before else Verdict("wait", job.not_before)

    def open_until(self) -> int:
        """Return when (ms) the last open start times out; 0 where none is open."""
        return max((s.started_at + s.call_timeout_ms + GRACE_MS for s in self._open.values()), default=0)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a call caused: records to emit, then the end of the attempt; `pause_ms` for its lane."""

    emits: tuple[Completion | Result | Job, ...]
    ended: AttemptEnded
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call that got no answer: `code` is timeout or unavailable."""

    code: str


def started(job: Job, worker: str, offset: int, now: int) -> AttemptStarted:
    """Return the ledger entry that must be acknowledged before the call of *job* is made."""
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


def ended(  # noqa: PLR0913 - the parts of one record
    job: Job, worker: str, now: int, outcome: str, status: int, code: str
) -> AttemptEnded:
    """Return the ledger entry that closes an attempt."""
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


def expired(job: Job, worker: str, now: int) -> Conclusion:
    """Return the end of a job whose request's deadline passed before it could be called."""
    result = _result(job, now, 504, "deadline_exceeded", "the deadline passed before a provider was called")
    return Conclusion((result,), ended(job, worker, now, "error", 0, "deadline_exceeded"))


def conclude(  # noqa: PLR0913 - a call is known by its job, answer, policy and dialect
    job: Job, answer: HttpReply | Unanswered, policy: Policy, dialect: ProviderConfig, worker: str, now: int
) -> Conclusion:
    """Return what *answer* to the call of *job* causes at *now* (ms)."""
    if isinstance(answer, Unanswered):
        return _advance(
            job, worker, now, 504 if answer.code == "timeout" else 502, f"provider_{answer.code}", 0
        )
    reply = dialect.read(answer)
    completion = _completion(job, answer, reply, policy, now)
    if reply.outcome == "ok":
        result = replace(
            _result(job, now, answer.status, "", ""), answer=completion.answer, cost_usd=completion.cost_usd
        )
        return Conclusion((completion, result), ended(job, worker, now, "ok", answer.status, ""))
    if reply.outcome == "never":
        message = f"{job.provider} refused the request with status {answer.status}"
        result = replace(
            _result(job, now, _error_status(answer.status), reply.error_code, message),
            answer=completion.answer,
        )
        return Conclusion(
            (completion, result), ended(job, worker, now, "error", answer.status, reply.error_code)
        )
    if reply.outcome == "retry" and answer.status == RATE_LIMITED:
        return _rate_limited(job, reply, worker, now)
    if reply.outcome == "retry" and job.tries > 1:
        retry = _again(job, now + backoff_ms(job, reply.retry_after_s), job.tries - 1)
        return Conclusion((retry,), ended(job, worker, now, "retry", answer.status, reply.error_code))
    return _advance(job, worker, now, answer.status, reply.error_code, answer.status)


def backoff_ms(job: Job, retry_after_s: float) -> int:
    """Return how long to wait before the next attempt: what was asked, up to an hour, or more each time."""
    if retry_after_s == retry_after_s and retry_after_s >= 0:  # noqa: PLR0124 - NaN says nothing
        return int(min(retry_after_s, _RETRY_AFTER_MAX_S) * 1000)
    base = min(_BACKOFF_MAX_MS, _BACKOFF_MS * 2 ** min(job.attempt, 10))
    return int(base * (0.5 + unit("backoff", job.request_id, job.attempt, "jitter")))


def _rate_limited(job: Job, reply: Reply, worker: str, now: int) -> Conclusion:
    """A 429 consumes no try: the lane waits, and the job with it, until the deadline."""
    wait = max(backoff_ms(job, reply.retry_after_s), 1)
    retry = _again(job, now + wait, job.tries)
    return Conclusion(
        (retry,), ended(job, worker, now, "retry", RATE_LIMITED, reply.error_code), pause_ms=wait
    )


def _again(job: Job, not_before: int, tries: int) -> Job:
    # Just after the deadline at the latest, where the job ends instead of waiting on.
    start = min(not_before, job.deadline + 1)
    return replace(job, attempt=job.attempt + 1, tries=tries, not_before=start)


def _advance(  # noqa: PLR0913 - where to, and why
    job: Job, worker: str, now: int, status: int, code: str, answered: int
) -> Conclusion:
    """Go on to the plan's next step; where there is none the request ends with an error."""
    index = job.plan_index + 1
    if index < len(job.plan):
        step = job.plan[index]
        following = replace(
            job,
            attempt=job.attempt + 1,
            plan_index=index,
            provider=step.provider,
            model=step.model,
            tries=step.attempts,
            call_timeout_ms=step.call_timeout_ms,
            not_before=0,
        )
        return Conclusion((following,), ended(job, worker, now, "advance", answered, code))
    models = ", ".join(step.model for step in job.plan)
    message = f"no model of the plan answered ({models}); the last failure was {code}"
    return Conclusion(
        (_result(job, now, _error_status(status), code, message),),
        ended(job, worker, now, "error", answered, code),
    )


def _error_status(status: int) -> int:
    """Return what a caller sees of *status*: an answer that was no success must not look like one."""
    return status if status >= _FIRST_ERROR else _BAD_GATEWAY


def _completion(job: Job, answer: HttpReply, reply: Reply, policy: Policy, now: int) -> Completion:
    ok = reply.outcome == "ok"
    cost = policy.cost_usd(job.model, reply.prompt_tokens, reply.completion_tokens) if ok else 0.0
    return Completion(
        request_id=job.request_id,
        origin=job.origin,
        step=job.step,
        branch=job.branch,
        attempt=job.attempt,
        provider=job.provider,
        model=job.model,
        executed_model=reply.model,
        status=answer.status,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        cost_usd=cost,
        price_version=policy.hash[:12],
        ttft_ms=answer.ttft_s * 1000,
        latency_ms=answer.elapsed_s * 1000,
        completed_at=now,
        policy_hash=job.policy_hash,
        answer=seal_plainly(answer.body),
    )


def _result(job: Job, now: int, status: int, code: str, message: str) -> Result:
    return Result(
        request_id=job.request_id,
        tenant=job.tenant,
        status=status,
        error_code=code,
        error_message=message,
        provider=job.provider,
        model=job.model,
        decision=job.decision,
        attempt=job.attempt,
        cost_usd=0.0,
        finished_at=now,
        accepted_at=job.accepted_at,
        policy_hash=job.policy_hash,
        origin=job.origin,
        run=job.run,
        custom_id=job.custom_id,
        line=job.line,
    )
