"""Decision functions with a fault planted in each, as a plugin's author might by mistake.

Each is the real one but for the fault, so what replay notices is the fault alone.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from agents.decision import Sets, decide
from agents.policy import Policy
from agents.selectors import Candidate, Odds, SelectorConfig, selector
from schemas.decision import DecisionCore, Facts


class SetOrder(SelectorConfig):
    """Prefer whichever candidate a set happens to yield first."""

    type: Literal["set_order"] = "set_order"

    def odds(self, candidates: Sequence[Candidate]) -> Odds:
        """Return all the probability for that candidate."""
        first = next(iter({c.model for c in candidates}))
        ones = tuple(float(c.model == first) for c in candidates)
        return Odds(ones, ones)


class ClockRead(SelectorConfig):
    """Score by the time of day."""

    type: Literal["clock_read"] = "clock_read"

    def odds(self, candidates: Sequence[Candidate]) -> Odds:
        """Return equal odds, and the clock as the first score."""
        share = 1 / len(candidates)
        scores = (time.time(), *[0.0] * (len(candidates) - 1))  # noqa: TID251 - the fault
        return Odds(scores, tuple(share for _ in candidates))


def _summed(names: Iterable[str]) -> float:
    """Return a sum of numbers of all sizes, whose last bits depend on the order of *names*."""
    sizes = {name: 10.0 ** (n % 17) / 3.0 for n, name in enumerate(sorted(names))}
    total = 0.0
    for name in names:
        total += sizes[name]
    return total


def _planted(change: Callable[[DecisionCore, Sets], DecisionCore]) -> Callable[..., DecisionCore]:
    def decider(policy: Policy, *, recipe: str, request_id: bytes, sets: Sets, facts: Facts) -> DecisionCore:
        core = decide(policy, recipe=recipe, request_id=request_id, sets=sets, facts=facts)
        return change(core, sets)

    return decider


clock = _planted(lambda core, _: replace(core, draw=time.time_ns() / 1e9))
date = _planted(lambda core, _: replace(core, salt=dt.datetime.now(tz=dt.UTC).isoformat()))  # noqa: TID251 - the fault
draw = _planted(lambda core, _: replace(core, draw=random.random()))  # noqa: TID251 - the fault
set_order = _planted(lambda core, _: replace(core, signals_used=tuple(set(core.signals_used))))
arrival_order = _planted(lambda core, sets: replace(core, signals_used=tuple({role: 0 for role, _ in sets})))
hash_value = _planted(lambda core, _: replace(core, salt=str(hash(core.decision))))
depths = _planted(lambda core, _: replace(core, rule=replace(core.rule, depth=())))
raises = _planted(lambda core, _: replace(core, draw=1 / 0))
wrong_type = _planted(lambda core, _: replace(core, chosen=None))  # type: ignore[arg-type]
float_arrival = _planted(
    lambda core, sets: replace(
        core, confidence=_summed([f"{role}{n}" for role, _ in sets for n in range(24)])
    )
)
float_set = _planted(
    lambda core, _: replace(
        core, confidence=_summed({f"{used}{n}" for used in ("a", *core.signals_used) for n in range(24)})
    )
)
negative_zero = _planted(
    lambda core, _: replace(core, scores=tuple(-0.0 if s == 0 else s for s in core.scores))
)


def _chosen_by(cls: type[SelectorConfig]) -> Callable[..., DecisionCore]:
    """Return the decision function as it is where every weighted choice is made by *cls*."""

    def decider(policy: Policy, *, recipe: str, request_id: bytes, sets: Sets, facts: Facts) -> DecisionCore:
        # The registry is put back at once: other tests enumerate it.
        honest = selector._classes["weighted"]
        selector._classes["weighted"] = cls
        try:
            fresh = Policy.loads(policy.normal_form)
            return decide(fresh, recipe=recipe, request_id=request_id, sets=sets, facts=facts)
        finally:
            selector._classes["weighted"] = honest

    return decider


set_order_selector = _chosen_by(SetOrder)
clock_selector = _chosen_by(ClockRead)
