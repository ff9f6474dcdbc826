"""What was decided and why. `core` is deterministic and what replay compares; `meta` is not."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.identity import Origin
from schemas.shape import Id16

NO_MATCH, MATCH, UNKNOWN, UNKNOWN_MATCH = 0, 1, 2, 3
"""How a condition came out; UNKNOWN_MATCH is an unknown signal that the rule lets count as a match."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The winner's rule tree in preorder, as parallel arrays; states are those above."""

    kind: tuple[str, ...] = ()
    leaf: tuple[str, ...] = ()
    state: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    depth: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One way to get the answer; a worker that exhausts it advances to the next."""

    provider: str
    model: str
    attempts: int
    call_timeout_ms: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Every input of the decision that is neither the request's signals nor the policy."""

    name: tuple[str, ...] = ()
    value: tuple[str, ...] = ()

    def get(self, name: str) -> str | None:
        """Return the value of fact *name*, or None."""
        return self.value[self.name.index(name)] if name in self.name else None


@dataclass(frozen=True, slots=True)
class Projected:
    """What the policy derived from the signals: its scores, and the outputs that it published."""

    score: tuple[str, ...] = ()
    value: tuple[float, ...] = ()
    output: tuple[str, ...] = ()
    confidence: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Explored:
    """How a decision explored: where `draw` is below `epsilon`, a candidate was tried for `incumbent`.

    An `epsilon` of 0 says that it did not. `extra_usd` is what the chosen model costs more than the
    incumbent by prices and the policy's expected tokens; it is negative for a saving.
    """

    epsilon: float = 0.0
    salt: str = ""
    draw: float = 0.0
    incumbent: str = ""
    extra_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class DecisionCore:
    """The decision proper; outcome is routed, default, bypassed or failed (then `failure` is a code).

    `confidence` and `matched_rules` (leaves as the policy writes them, in its order) are the winner's.
    """

    policy_hash: str
    recipe: str
    outcome: str
    failure: str
    decision: str
    rule: Trace
    candidates: tuple[str, ...]
    scores: tuple[float, ...]
    propensities: tuple[float, ...]
    chosen: str
    plan: tuple[PlanStep, ...]
    signals_used: tuple[str, ...]
    signals_missing: tuple[str, ...]
    selector: str
    salt: str
    draw: float
    facts: Facts
    confidence: float = 0.0
    matched_rules: tuple[str, ...] = ()
    projected: Projected = field(default_factory=Projected)
    explored: Explored = Explored()


@dataclass(frozen=True, slots=True)
class Input:
    """The SignalSet that was used: its role and its offset in the origin's partition."""

    role: str
    offset: int


@dataclass(frozen=True, slots=True)
class DecisionMeta:
    """How the decision came about (times in ms, `waited_ms` since admission); none of it enters the core.

    `explored_usd` is what exploring cost in the partition that day, this decision included.
    """

    inputs: tuple[Input, ...]
    decided_at: int
    waited_ms: int
    late_roles: tuple[str, ...] = ()
    explored_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The choice made for a request; the first one in the log is the decision.

    `key_id` stands for tenant and idempotency key of a request that has one: of the requests that share
    it within the horizon, the first decided in the log holds it.
    """

    request_id: Id16
    origin: Origin
    core: DecisionCore
    meta: DecisionMeta
    key_id: Id16 | None = None
