"""Turn the decision that the log holds into a job, or into the Result that ends the request."""

from __future__ import annotations

from agents.errors import InvalidRecord
from schemas.completion import Result
from schemas.decision import Decision
from schemas.identity import Origin
from schemas.job import Job
from schemas.request import Request

DEAD_LETTERED = "dead_lettered"
TAKEN_BACK = "dead_lettered:dispatch"
"""The failure of a Decision that takes an earlier one of its request back, which could not be dispatched."""

_TIME_BITS = 44
_TIME_MASK = (1 << _TIME_BITS) - 1
_STATUS = {"model_not_found": 404, "no_decision": 422}
_MESSAGES = {
    "model_not_found": "no model of this name under the policy",
    "no_decision": "no decision of the policy matches and there is no default model",
}


class FirstDecisions:
    """Which Decision of each request came first in the log, for one partition; bounded.

    Decisions must be noted in log order. A decision that only says that the request was dead-lettered
    does not count, so that a redriven request can still be decided. Behind the horizon a request, or an
    idempotency key, is a new one. At most *limit* are remembered, at least the latest half of it.
    """

    def __init__(self, limit: int, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._first = _Memory(limit)
        self._holders = _Memory(limit)

    def note(self, decision: Decision, offset: int, timestamp: int) -> None:
        """Note *decision*, read at *offset* with log *timestamp* (ms)."""
        if decision.core.failure == DEAD_LETTERED:
            return
        if decision.core.failure == TAKEN_BACK:
            self._first.forget(decision.request_id)
            return
        self._hold(self._first, decision.request_id, offset, timestamp)
        if decision.key_id is not None:
            self._hold(self._holders, decision.key_id, _number(decision.request_id), timestamp)

    def _hold(self, memory: _Memory, key: bytes, value: int, timestamp: int) -> None:
        known = memory.get(key)
        if known is None or timestamp - known[1] > self._horizon_ms:
            memory.put(key, value, timestamp)

    def is_first(self, decision: Decision, offset: int) -> bool:
        """Tell whether the one at *offset* is the request's decision."""
        known = self._first.get(decision.request_id)
        return known is None or known[0] == offset

    def is_conflict(self, decision: Decision) -> bool:
        """Tell whether another request, of another body, holds the idempotency key of *decision*."""
        holder = None if decision.key_id is None else self._holders.get(decision.key_id)
        return holder is not None and holder[0] != _number(decision.request_id)

    def __len__(self) -> int:
        """Return how many requests are remembered."""
        return len(self._first)


def _number(request_id: bytes) -> int:
    """Return 64 bits of *request_id*: enough to tell two bodies under one key apart."""
    return int.from_bytes(request_id[:8], "big")


class _Memory:
    """Numbers with a time by 16-byte key; when full, the older half is dropped at once.

    Two plain dicts of one packed integer each take half of what an ordered one of tuples does.
    """

    def __init__(self, limit: int) -> None:
        self._half = max(limit // 2, 1)
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}

    def get(self, key: bytes) -> tuple[int, int] | None:
        packed = self._young.get(key)
        if packed is None:
            packed = self._old.get(key)
        return None if packed is None else (packed >> _TIME_BITS, packed & _TIME_MASK)

    def put(self, key: bytes, value: int, timestamp: int) -> None:
        if len(self._young) >= self._half and key not in self._young:
            self._old, self._young = self._young, {}
        self._young[key] = value << _TIME_BITS | timestamp

    def forget(self, key: bytes) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def dispatch(request: Request, decision: Decision, now: int) -> Job | Result | None:
    """Return what *decision* means for *request* at *now* (ms); None where it means nothing yet.

    Raises `InvalidRecord` if the two do not belong together.
    """
    core = decision.core
    if decision.request_id != request.request_id:
        message = "the decision at this origin is of another request"
        raise InvalidRecord(message)
    if core.failure in {DEAD_LETTERED, TAKEN_BACK}:
        return None
    if core.outcome == "failed":
        code = core.failure.split(":", 1)[0]
        text = _MESSAGES.get(code, f"the request could not be decided: {core.failure}")
        return failure(
            request, decision.origin, (_STATUS.get(code, 503), core.failure, text), core.decision, now
        )
    step = core.plan[0]
    return Job(
        request_id=request.request_id,
        origin=decision.origin,
        step=0,
        branch=0,
        attempt=0,
        provider=step.provider,
        model=step.model,
        plan=core.plan,
        plan_index=0,
        tries=step.attempts,
        decision=core.decision or f"({core.outcome})",
        body=request.body,
        endpoint=request.endpoint,
        call_timeout_ms=step.call_timeout_ms,
        not_before=0,
        deadline=request.deadline,
        accepted_at=request.accepted_at,
        policy_hash=core.policy_hash,
        recipe=core.recipe,
        tenant=request.tenant,
        run=request.run,
        custom_id=request.custom_id,
        line=request.line,
        priority=request.priority,
    )


def undecided(request: Request, origin: Origin, now: int) -> Result:
    """Return the end of a request of which no decision came in time.

    Raises `InvalidRecord` if there is time left: then what came for it could not be read.
    """
    if now <= request.deadline:
        message = "the decision of this request cannot be read"
        raise InvalidRecord(message)
    text = "the deadline passed before the request was decided"
    return failure(request, origin, (504, "deadline_exceeded", text), "", now)


def conflict(request: Request, decision: Decision, now: int) -> Result:
    """Return the Result of a request whose idempotency key is held by a request with another body."""
    text = "the idempotency key was used with another body less than a day ago; use another key"
    return failure(request, decision.origin, (409, "idempotency_conflict", text), decision.core.decision, now)


def failure(request: Request, origin: Origin, error: tuple[int, str, str], decision: str, now: int) -> Result:
    """Return the Result of a request that no provider will be asked for; *error* = status, code, text."""
    status, code, message = error
    return Result(
        request_id=request.request_id,
        tenant=request.tenant,
        status=status,
        error_code=code,
        error_message=message,
        provider="",
        model="",
        decision=decision,
        attempt=0,
        cost_usd=0.0,
        finished_at=now,
        accepted_at=request.accepted_at,
        policy_hash=request.policy_hash,
        origin=origin,
        run=request.run,
        custom_id=request.custom_id,
        line=request.line,
    )
