"""What a provider worker does about one job, without doing it: records, and the job that follows.

Three verbs (`agents.failures`): a failed call is retried, degraded to the plan's next step, or its
request is rejected. An answered error makes a new attempt with a new key; a call without an answer
is made again with the same key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agents.failures import RATE_LIMITED, wait_ms
from agents.ledger import ended
from agents.policy import Policy
from agents.ports import HttpReply
from agents.providers import ProviderConfig, Reply
from schemas.completion import Completion, Result
from schemas.job import AttemptEnded, Following, Job
from schemas.sealed import seal_plainly

_NAN = float("nan")
_FIRST_ERROR = 400
_BAD_GATEWAY = 502
_UNAVAILABLE = 503
_GATEWAY_TIMEOUT = 504


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What an attempt caused: `emits`, then its end, then the `job` that follows, in this order.

    Each is acknowledged before the next is written, so that at any moment of death the log says what
    is missing: without the end the attempt is repeated under its key, with it the job is written again.
    """

    emits: tuple[Completion | Result, ...]
    ended: AttemptEnded
    job: Job | None = None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call that got no answer: `code` is timeout or unavailable."""

    code: str


def job_after(job: Job, following: Following) -> Job:
    """Return the job that follows *job*."""
    return replace(
        job,
        attempt=following.attempt,
        plan_index=following.plan_index,
        provider=following.provider,
        model=following.model,
        tries=following.tries,
        call_timeout_ms=following.call_timeout_ms,
        not_before=following.not_before,
    )


def held_after(job: Job, code: str, now: int, *, tried: int) -> Job:
    """Return *job*, to be called again under its key, after a call without an answer for the reason *code*.

    A timeout was wait enough; else it is held the longer, the more often it was *tried* before.
    """
    if code == "timeout":
        return job
    until = now + wait_ms(job.request_id, job.attempt + tried, _NAN)
    return replace(job, not_before=min(until, job.deadline + 1))


def concluded(
    job: Job, end: AttemptEnded, following: Following | None, emits: tuple[Completion | Result, ...] = ()
) -> Conclusion:
    """Return the conclusion of *job* by *end* with what follows."""
    if following is None:
        return Conclusion(emits, end)
    return Conclusion(emits, replace(end, following=following), job_after(job, following))


def expired(job: Job, worker: str, now: int) -> Conclusion:
    """Return the end of a job whose request's deadline passed before it could be called."""
    code = "deadline_exceeded"
    result = _result(job, now, _GATEWAY_TIMEOUT, code, "the deadline passed before a provider was called")
    return Conclusion((result,), ended(job, worker, now, "error", (0, code)))


def answered_late(job: Job, worker: str, now: int) -> Conclusion:
    """Return the end of a job whose request was answered after all, by a call that had timed out."""
    return Conclusion((), ended(job, worker, now, "ok", (0, "answered_late")))


def degraded(job: Job, worker: str, now: int, code: str) -> Conclusion:
    """Return the end of a job that is not called because its lane is out, for the reason *code*."""
    return _advance(job, worker, now, (_UNAVAILABLE, code), 0)


def parked(job: Job, worker: str, now: int, until: int, code: str) -> Conclusion:
    """Return the end of a job that waits in a tier until *until* (ms), for *code*; it uses no try."""
    end = ended(job, worker, now, "parked", (0, code))
    return concluded(job, end, _again(job, until, job.tries))


def conclude(  # noqa: PLR0913 - a call is known by its job, answer, policy and dialect
    job: Job, answer: HttpReply | Unanswered, policy: Policy, dialect: ProviderConfig, worker: str, now: int
) -> Conclusion:
    """Return what *answer* to the call of *job*, its last one under this key, causes at *now* (ms)."""
    if isinstance(answer, Unanswered):
        status = _GATEWAY_TIMEOUT if answer.code == "timeout" else _BAD_GATEWAY
        return _advance(job, worker, now, (status, f"provider_{answer.code}"), 0)
    reply = dialect.read(answer)
    completion = _completion(job, answer, reply, policy, now)
    if reply.outcome == "ok":
        return Conclusion(
            (completion, _answer(job, completion, now)), ended(job, worker, now, "ok", (answer.status, ""))
        )
    if reply.outcome == "reject":
        message = f"{job.provider} refused the request with status {answer.status}"
        status = _error_status(answer.status)
        result = replace(_result(job, now, status, reply.error_code, message), answer=completion.answer)
        end = ended(job, worker, now, "error", (answer.status, reply.error_code))
        return Conclusion((completion, result), end)
    return _failed(job, answer, reply, worker, now, completion)


def late(
    job: Job, answer: HttpReply, policy: Policy, dialect: ProviderConfig, now: int
) -> tuple[Completion | Result, ...]:
    """Return what an *answer* causes whose call had timed out: it is billed, and delivered if it is good.

    Nothing else: the attempt has gone on or ended without it. Of several Results the first in the log
    counts.
    """
    reply = dialect.read(answer)
    completion = replace(_completion(job, answer, reply, policy, now), late=True)
    return (completion, _answer(job, completion, now)) if reply.outcome == "ok" else (completion,)


def _failed(  # noqa: PLR0913 - as above
    job: Job, answer: HttpReply, reply: Reply, worker: str, now: int, completion: Completion
) -> Conclusion:
    """Retry where that is allowed, else degrade; what the provider counted is billed all the same."""
    cause = (answer.status, reply.error_code)
    billed = (completion,) if completion.prompt_tokens + completion.completion_tokens > 0 else ()
    wait = wait_ms(job.request_id, job.attempt, reply.retry_after_s)
    if reply.outcome == "retry" and answer.status == RATE_LIMITED:
        # It uses no try: the lane waits, and the job with it, until the deadline.
        until = now + max(wait, 1)
        end = replace(ended(job, worker, now, "retry", cause), lane_until=until)
        return concluded(job, end, _again(job, until, job.tries), billed)
    if reply.outcome == "retry" and job.tries > 1:
        return concluded(
            job, ended(job, worker, now, "retry", cause), _again(job, now + wait, job.tries - 1), billed
        )
    conclusion = _advance(job, worker, now, cause, answer.status)
    return replace(conclusion, emits=(*billed, *conclusion.emits))


def _again(job: Job, not_before: int, tries: int) -> Following:
    # Just after the deadline at the latest, where the job ends instead of waiting on.
    start = min(not_before, job.deadline + 1)
    return Following(
        job.attempt + 1, job.plan_index, job.provider, job.model, tries, job.call_timeout_ms, start
    )


def _advance(job: Job, worker: str, now: int, cause: tuple[int, str], answered: int) -> Conclusion:
    """Go on to the plan's next step; where there is none the request ends with an error."""
    status, code = cause
    index = job.plan_index + 1
    if index < len(job.plan):
        step = job.plan[index]
        following = Following(
            job.attempt + 1, index, step.provider, step.model, step.attempts, step.call_timeout_ms, 0
        )
        return concluded(job, ended(job, worker, now, "advance", (answered, code)), following)
    models = ", ".join(step.model for step in job.plan)
    message = f"no model of the plan answered ({models}); the last failure was {code}"
    result = _result(job, now, _error_status(status), code, message)
    return Conclusion((result,), ended(job, worker, now, "error", (answered, code)))


def _error_status(status: int) -> int:
    """Return what a caller sees of *status*: an answer that was no success must not look like one."""
    return status if status >= _FIRST_ERROR else _BAD_GATEWAY


def _completion(job: Job, answer: HttpReply, reply: Reply, policy: Policy, now: int) -> Completion:
    cost = policy.cost_usd(job.model, reply.prompt_tokens, reply.completion_tokens)
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


def _answer(job: Job, completion: Completion, now: int) -> Result:
    return replace(
        _result(job, now, completion.status, "", ""), answer=completion.answer, cost_usd=completion.cost_usd
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
