"""What a failure means: retry, degrade or reject. The one place that says so.

retry    asking the same again may help: later, with backoff and jitter, as often as the plan allows
degrade  another model may do: the plan's next step takes over; a signal is `failed`, and rules go on
reject   nobody would do better: the request ends with an error, a record becomes a dead letter

Whoever meets a failure names it by its code; the verb follows from the code. A failure to be retried
whose tries are used up degrades, and where there is nothing to degrade to it rejects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agents.draw import unit
from agents.errors import PolicyMissing, Unavailable

Verb = Literal["retry", "degrade", "reject"]

VERBS: Mapping[str, Verb] = {
    "conflict": "retry",
    "invalid_answer": "retry",
    "provider_error": "retry",
    "provider_timeout": "retry",
    "provider_unavailable": "retry",
    "rate_limited": "retry",
    "timeout": "retry",
    "too_early": "retry",
    "circuit_open": "degrade",
    "content_filter": "degrade",
    "context_length": "degrade",
    "model_retired": "degrade",
    "quota_exhausted": "degrade",
    "bad_request": "reject",
    "deadline_exceeded": "reject",
    "forbidden": "reject",
    "not_found": "reject",
    "unauthorized": "reject",
    "unexpected_status": "reject",
}
"""Every code of a failed call, as results and the ledger show it."""

LANE_FAILURES = frozenset(
    {"invalid_answer", "provider_error", "provider_timeout", "provider_unavailable", "timeout"}
)
"""Failures that speak against the lane rather than against the request: they open its circuit."""

VOID = frozenset({"rate_limited", "not_called"})
"""Endings that say nothing of the lane's health."""

RATE_LIMITED = 429
_SERVER_ERROR = 500
_BY_STATUS: Mapping[int, str] = {
    401: "unauthorized",
    402: "quota_exhausted",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    410: "model_retired",
    413: "context_length",
    425: "too_early",
    RATE_LIMITED: "rate_limited",
}

BACKOFF_MS = 250
BACKOFF_MAX_MS = 30_000
RETRY_AFTER_MAX_S = 3600.0
"""No lane pauses longer than this for one answer, whatever it asked for."""


def code_of_status(status: int) -> str:
    """Return the code of an HTTP answer that says no more than its error *status*."""
    if status >= _SERVER_ERROR:
        return "provider_error"
    return _BY_STATUS.get(status, "bad_request")


def verb_of(code: str) -> Verb:
    """Return what a failure *code* means; one that nobody named here is rejected."""
    return VERBS.get(code, "reject")


def verb_of_error(error: BaseException) -> Verb:
    """Return what an exception of a step means; an unknown one is a defect, and rejects its record."""
    return "retry" if isinstance(error, Unavailable | PolicyMissing) else "reject"


def wait_ms(request_id: bytes, attempt: int, retry_after_s: float) -> int:
    """Return how long (ms) to wait after *attempt*: what was asked, up to an hour, or more each time.

    The jitter, half of the wait up or down, is a hash of request and attempt: no generator is drawn from.
    """
    if retry_after_s == retry_after_s and retry_after_s >= 0:  # noqa: PLR0124 - NaN says nothing
        return int(min(retry_after_s, RETRY_AFTER_MAX_S) * 1000)
    base = min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** min(attempt, 10))
    return int(base * (0.5 + unit("backoff", request_id, attempt, "jitter")))
