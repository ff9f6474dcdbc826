"""A reward for how a request was answered, and who says so."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.identity import Origin
from schemas.sealed import Sealed
from schemas.shape import Id16


@dataclass(frozen=True, slots=True)
class Feedback:
    """One rating; `observation` is the probability that it was observed at all (NaN if unknown)."""

    request_id: Id16
    source: str
    metric: str
    reward: float
    observation: float
    arrived_at: int
    origin: Origin | None = None
    comment: Sealed | None = None
