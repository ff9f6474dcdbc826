"""What one role observed about one request: parallel arrays, never a column per signal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from schemas.identity import Origin
from schemas.shape import Id16


class Observation(NamedTuple):
    """One signal's outcome; an absent number is NaN, status is ok, failed or skipped."""

    type: str
    name: str
    label: str
    matched: bool
    confidence: float
    value: float
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Observations:
    """Observations as parallel arrays in declaration order; near misses are kept."""

    type: tuple[str, ...] = ()
    name: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    matched: tuple[bool, ...] = ()
    confidence: tuple[float, ...] = ()
    value: tuple[float, ...] = ()
    status: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Observation]:
        """Iterate over the observations in declaration order."""
        columns = (
            self.type,
            self.name,
            self.label,
            self.matched,
            self.confidence,
            self.value,
            self.status,
            self.reason,
        )
        return (Observation(*row) for row in zip(*columns, strict=True))

    @staticmethod
    def of(rows: list[Observation]) -> Observations:
        """Return *rows* as parallel arrays."""
        return Observations(*zip(*rows, strict=True)) if rows else Observations()


@dataclass(frozen=True, slots=True)
class SignalSet:
    """All that a role observed about a request, under the policy that the request is stamped with.

    `shadow` names those observations (``type:name``) that no decision of the policy demands, and
    `shadow_rate` with which probability each was made; the decision does not see them.
    """

    request_id: Id16
    origin: Origin
    role: str
    policy_hash: str
    recipe: str
    observations: Observations
    started_at: int
    elapsed_us: int
    classifiers: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    shadow: tuple[str, ...] = ()
    shadow_rate: tuple[float, ...] = ()

    @property
    def only_shadow(self) -> bool:
        """Whether no decision demands any of it, so that nobody waits for it."""
        if not self.shadow:
            return False
        seen = self.observations
        return all(f"{kind}:{name}" in self.shadow for kind, name in zip(seen.type, seen.name, strict=True))
