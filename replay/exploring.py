"""What exploring costs: as logged, and as a policy would do by prices and expected tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.policy import Policy
from schemas.decision import DecisionCore

Json = dict[str, Any]


@dataclass(slots=True)
class Spent:
    """What logged decisions explored; `extra_usd` nets what tried models cost more or less than incumbents.

    `open` decisions drew whether to explore, `explored` did, `moved` went to another model thereby;
    `charged_usd` is what counts against the cap, savings left out.
    """

    open: int = 0
    explored: int = 0
    moved: int = 0
    extra_usd: float = 0.0
    charged_usd: float = 0.0

    def add(self, core: DecisionCore) -> None:
        """Add one decision."""
        found = core.explored
        if found.epsilon <= 0.0:
            return
        self.open += 1
        if found.draw < found.epsilon:
            self.explored += 1
            self.moved += core.chosen != found.incumbent
            self.extra_usd += found.extra_usd
            self.charged_usd += max(0.0, found.extra_usd)


def planned(policy: Policy, counts: Mapping[str, int]) -> Json | None:
    """Return what *policy* would explore of requests by decision (*counts*), None if it explores nothing.

    As long as the cap lasts; `expected_extra_usd` is by prices and the policy's expected tokens. A decision
    whose name several recipes have cannot be counted and is `uncounted`.
    """
    if policy.exploration is None or not policy.trials:
        return None
    named = Counter(
        name for _, routing in policy.scopes for name in {rule.name for rule in routing.decisions}
    )
    told = {key: trial for key, trial in policy.trials.items() if named[key[1]] == 1}
    explored = sum(trial.epsilon * counts.get(name, 0) for (_, name), trial in told.items())
    extra = sum(
        trial.expected_extra(odds_of(policy, *key)) * counts.get(key[1], 0) for key, trial in told.items()
    )
    return {
        "decisions": sum(counts.get(name, 0) for _, name in told),
        "expected_explored": round(explored, 6),
        "expected_extra_usd": round(extra, 9),
        "max_extra_usd_per_day": policy.exploration.max_extra_usd_per_day,
        "uncounted": sorted({name for _, name in policy.trials if named[name] > 1}),
    }


def odds_of(policy: Policy, recipe: str, name: str) -> tuple[float, ...]:
    """Return the selector's own odds in one decision, which has a selector since it explores."""
    routing = policy.routing_of(recipe)
    rule = next(rule for rule in routing.decisions if rule.name == name) if routing is not None else None
    if rule is None or rule.selector is None:
        return ()
    return rule.selector.odds(policy.candidates(rule)).propensities
