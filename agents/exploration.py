"""Exploring between candidates of a decision: who is tried, how likely, and on whose budget.

A selector's odds q are mixed with the uniform u over the explored candidates: p = (1 - e) q + e u
(epsilon-greedy, Sutton and Barto, Reinforcement Learning, 2nd ed., 2.2). Two draws: `EXPLORE` says
whether this request explores, `AMONG` which candidate it tries, so that a request that does not explore
is answered as it would be without any exploration.

Money is spent by an account of each partition: it knows what was spent today from the decisions that
the partition holds, and its answer, `OPEN` or `SPENT`, is a fact of the decision. So deciding again
needs no account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.draw import unit
from agents.exploration_model import Exploration
from schemas.decision import Decision, DecisionCore, Explored

if TYPE_CHECKING:
    from agents.policy import Policy
    from agents.policy_model import Decision as DecisionRule

FACT = "exploration"
OPEN, SPENT = "open", "spent"
EXPLORE, AMONG = "exploration", "explored"
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Trial:
    """How a decision explores: `among` are places in its candidates, `usd` what each candidate costs."""

    epsilon: float
    salt: str
    among: tuple[int, ...]
    usd: tuple[float, ...]

    def mixed(self, odds: Sequence[float]) -> tuple[float, ...]:
        """Return the propensity of every candidate: *odds* mixed with the uniform over `among`."""
        share = self.epsilon / len(self.among)
        kept = 1.0 - self.epsilon
        return tuple(kept * q + (share if n in self.among else 0.0) for n, q in enumerate(odds))

    def draw(self, request_id: bytes) -> float:
        """Return the number that explores where it is below epsilon."""
        return unit(self.salt, request_id, 0, EXPLORE)

    def tried(self, request_id: bytes) -> int:
        """Return the place of the candidate that a request which explores is answered by."""
        return self.among[int(unit(self.salt, request_id, 0, AMONG) * len(self.among))]

    def choose(self, request_id: bytes, incumbent: int, names: Sequence[str]) -> tuple[int, Explored]:
        """Return the place that is chosen where *incumbent* would be without exploring, and the record."""
        draw = self.draw(request_id)
        index = self.tried(request_id) if draw < self.epsilon else incumbent
        extra = self.usd[index] - self.usd[incumbent]
        return index, Explored(self.epsilon, self.salt, draw, names[incumbent], extra)

    def expected_extra(self, odds: Sequence[float]) -> float:
        """Return the expected USD a request that exploring costs more than *odds* alone."""
        own = sum(q * usd for q, usd in zip(odds, self.usd, strict=True))
        tried = sum(self.usd[n] for n in self.among) / len(self.among)
        return self.epsilon * (tried - own)

    @property
    def dearest(self) -> float:
        """The most that one request can cost more by exploring, in USD."""
        return max(0.0, max(self.usd[n] for n in self.among) - min(self.usd))


def trial_of(policy: Policy, recipe: str, rule: DecisionRule) -> Trial | None:
    """Return how *rule* of *recipe* explores, None where it does not.

    Never if it is marked as safety, or if its algorithm is not here: then it chooses nobody. Only candidates
    of the decision that a provider serves are tried.
    """
    exploration = policy.exploration
    if exploration is None or rule.safety or rule.selector is None:
        return None
    key = f"{recipe}/{rule.name}" if recipe else rule.name
    found = exploration.decisions.get(key)
    if found is None or found.epsilon <= 0.0:
        return None
    names = [candidate.model for candidate in policy.candidates(rule)]
    among = tuple(
        names.index(name)
        for name in dict.fromkeys(found.candidates)
        if name in names and policy.plan((name,))
    )
    if not among:
        return None
    usd = tuple(planned_usd(policy, exploration, name) for name in names)
    return Trial(found.epsilon, exploration.salt or f"{recipe}/{rule.name}", among, usd)


def planned_usd(policy: Policy, exploration: Exploration, model: str) -> float:
    """Return what a request of the expected tokens costs with *model*, 0 for one that is not declared."""
    if model not in policy.models:
        return 0.0
    return policy.cost_usd(model, exploration.tokens.prompt, exploration.tokens.completion)


@dataclass(slots=True)
class Account:
    """What exploring cost in one partition today (UTC, by the clock of deciding).

    The cap of a policy is shared evenly by all `partitions`; a saving is not credited.
    """

    partitions: int
    day: int = 0
    spent: float = 0.0

    def at(self, now: int) -> None:
        """Begin a new day if *now* (ms) is in one; a clock that went back stays in its day."""
        if now // DAY_MS > self.day:
            self.day, self.spent = now // DAY_MS, 0.0

    def note(self, record: object) -> None:
        """Take over what *record*, read back from this partition, says was spent."""
        if isinstance(record, Decision):
            self.at(record.meta.decided_at)
            if record.meta.decided_at // DAY_MS == self.day:
                self.spent = max(self.spent, record.meta.explored_usd)

    def fact(self, policy: Policy, now: int) -> str:
        """Return whether one more request may explore at *now* (ms): "" for a policy that does not."""
        self.at(now)
        if policy.exploration is None:
            return ""
        share = (policy.exploration.max_extra_usd_per_day or 0.0) / self.partitions
        return OPEN if self.spent + policy.dearest_trial <= share else SPENT

    def charge(self, core: DecisionCore) -> None:
        """Add what *core* cost more by exploring."""
        self.spent += max(0.0, core.explored.extra_usd)
