"""What the caller asked: who, what and by when. Written by admission only, never changed."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.sealed import Body, Sealed
from schemas.shape import Id16


@dataclass(frozen=True, slots=True)
class Request:
    """An admitted request; times are ms since the epoch, `line` counts from 1."""

    request_id: Id16
    tenant: str
    source: str
    body: Body
    endpoint: str
    requested_model: str
    accepted_at: int
    decide_by: int
    deadline: int
    policy_hash: str
    recipe: str
    run: str = ""
    custom_id: str | None = None
    line: int | None = None
    idempotency_key: str | None = None
    subject: Sealed | None = None
    roles: tuple[str, ...] = ()
    data_class: str = ""
    residency: str = ""
    headers: Sealed | None = None
    priority: int = 0
