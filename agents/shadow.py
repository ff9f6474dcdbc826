"""What the shadow policy would decide of a request, from the signals that its own policy had observed.

Never acted upon. A signal that only the shadow demands, or defines otherwise under the same name, is
unknown to it: what was observed answers another question.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from agents.decision import REQUESTED_MODEL, Sets, decide, failed
from agents.policy import Policy
from agents.policy_model import leaf_key
from schemas.decision import Decision, DecisionCore
from schemas.signal import Observations, SignalSet

FAILED = "shadow_error"


def shadow_core(shadow: Policy, stamped: Policy, made: Decision, sets: Sets) -> DecisionCore:
    """Return the core of *shadow* for the request that *stamped* decided as *made* by the signals *sets*.

    Never raises: a shadow that fails must not bury what
    it only looks at.
    """
    facts = made.core.facts
    own = shadow.recipe_for(facts.get(REQUESTED_MODEL) or "")
    if own is None:
        return failed(shadow.hash, "", "model_not_found")
    try:
        known = _alike(shadow, own, stamped, made.core.recipe)
        seen = [(role, _only(found, known)) for role, found in sets]
        return decide(shadow, recipe=own, request_id=made.request_id, sets=seen, facts=facts)
    except Exception:  # noqa: BLE001 - see above; the code in the log says that it happened
        return failed(shadow.hash, own, FAILED)


@lru_cache(maxsize=256)
def _alike_of(demands: _Demands) -> frozenset[tuple[str, str]]:
    mine, theirs = demands.pair
    if mine.identity != theirs.identity:
        return frozenset()
    observed = {leaf_key(c): c for configs in theirs.demand(demands.recipes[1]).values() for c in configs}
    observed |= {leaf_key(config): config for config, _ in theirs.beside(demands.recipes[1])}
    wanted = {leaf_key(c): c for configs in mine.demand(demands.recipes[0]).values() for c in configs}
    return frozenset(key for key, config in wanted.items() if observed.get(key) == config)


class _Demands:
    """Two policies and a recipe of each, equal by their hashes: a policy itself is costly to compare."""

    def __init__(self, pair: tuple[Policy, Policy], recipes: tuple[str, str]) -> None:
        self.pair = pair
        self.recipes = recipes
        self._key = (pair[0].hash, pair[1].hash, recipes)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Demands) and self._key == other._key


def _alike(shadow: Policy, own: str, stamped: Policy, recipe: str) -> frozenset[tuple[str, str]]:
    """Return type and name of the signals that both policies define alike."""
    return _alike_of(_Demands((shadow, stamped), (own, recipe)))


def _only(found: SignalSet, known: frozenset[tuple[str, str]]) -> SignalSet:
    rows = [row for row in found.observations if (row.type, row.name) in known]
    return replace(found, observations=Observations.of(rows))
