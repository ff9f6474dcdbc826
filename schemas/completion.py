"""A provider's answer and what it cost; and the one effective result of a request."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.identity import Origin
from schemas.sealed import Body, Sealed
from schemas.shape import Id16


@dataclass(frozen=True, slots=True)
class Completion:
    """One answered call; tokens are counts, cost is USD, an absent number is NaN or -1.

    The first of its job (request, step, branch, attempt) in the log is what was billed. A *late* one
    came after its call had timed out. An answer too large for a record is kept by `answer_claim` instead.
    """

    request_id: Id16
    origin: Origin
    step: int
    branch: int
    attempt: int
    provider: str
    model: str
    executed_model: str
    status: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    price_version: str
    ttft_ms: float
    latency_ms: float
    completed_at: int
    policy_hash: str
    answer: Sealed | None = None
    plugins: tuple[str, ...] = ()
    late: bool = False
    answer_claim: Body | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a request ended; of several the first in the log is the effective one.

    An answer that is too large for a record is kept by `answer_claim` instead.
    """

    request_id: Id16
    tenant: str
    status: int
    error_code: str
    error_message: str
    provider: str
    model: str
    decision: str
    attempt: int
    cost_usd: float
    finished_at: int
    accepted_at: int
    policy_hash: str
    origin: Origin | None = None
    run: str = ""
    custom_id: str | None = None
    line: int | None = None
    answer: Sealed | None = None
    answer_claim: Body | None = None
