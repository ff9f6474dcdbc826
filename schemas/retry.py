"""A record that waits outside its partition until it is due."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.dead_letter import Header
from schemas.identity import Origin
from schemas.shape import Id16


@dataclass(frozen=True, slots=True)
class Retry:
    """A record with the topic and partition it goes to at `due_at` (ms), its bytes untouched.

    `stage` parked it for the reason `code`, which quotes no content.
    """

    request_id: Id16
    origin: Origin
    topic: str
    partition: int
    due_at: int
    parked_at: int
    stage: str
    code: str
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[Header, ...] = ()
