"""Rules to candidates to a choice: the decision proper, a function of its arguments alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agents.draw import pick, unit
from agents.engine.scalar import Evaluator
from agents.engine.stages import Vector
from agents.engine.tracing import SignalUnknown, Verdict
from agents.exploration import FACT, OPEN
from agents.policy import Policy
from agents.policy_model import Decision as DecisionRule
from agents.policy_model import Routing
from schemas.decision import DecisionCore, Explored, Facts, Projected, Trace
from schemas.signal import Observations, SignalSet

Sets = Sequence[tuple[str, SignalSet]]
REQUESTED_MODEL = "requested_model"
TAG = "selection"
_OK = "ok"
_NOTHING = Projected()


_UNEXPLORED = Explored()


def facts_of(requested_model: str, exploration: str = "") -> Facts:
    """Return the facts that a decision reads besides its signals; *exploration* is what an account says."""
    if exploration:
        return Facts((REQUESTED_MODEL, FACT), (requested_model, exploration))
    return Facts((REQUESTED_MODEL,), (requested_model,))


@dataclass(frozen=True, slots=True)
class _Case:
    """What every outcome of one decision says alike."""

    policy: Policy
    recipe: str
    request_id: bytes
    facts: Facts
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    projected: Projected = _NOTHING


def decide(policy: Policy, *, recipe: str, request_id: bytes, sets: Sets, facts: Facts) -> DecisionCore:
    """Return the decision of *policy* over the SignalSets *sets* (role, set) and *facts*.

    The order of *sets* does not matter.
    """
    routing = policy.routing_of(recipe)
    if routing is None:
        return _bypassed(_Case(policy, recipe, request_id, facts))
    ordered = [(role, _seen(routing, found)) for role, found in sorted(sets, key=lambda pair: pair[0])]
    used, missing = _used(routing, ordered)
    evaluator = policy.evaluators[recipe]
    vector = evaluator.vector([observed.observations for _, observed in ordered])
    try:
        chosen = evaluator.choose(vector)
    except SignalUnknown as unknown:
        case = _Case(policy, recipe, request_id, facts, used, missing)
        return _failed(case, f"signal_unknown:{unknown.leaf}")
    case = _Case(policy, recipe, request_id, facts, used, missing, _projected(evaluator, vector))
    if chosen.rule >= 0:
        return _selected(case, routing.decisions[chosen.rule], evaluator.explain(vector, chosen.rule))
    default = policy.providers.defaults.default_model
    return _sole(case, "default", default) if default else _failed(case, "no_decision")


def _seen(routing: Routing, found: SignalSet) -> SignalSet:
    """Return *found* without what was observed in shadow, unless *routing* demands it."""
    if not found.shadow:
        return found
    demanded = {f"{kind}:{name}" for kind, name in routing.demanded_keys}
    hidden = set(found.shadow) - demanded
    rows = [row for row in found.observations if f"{row.type}:{row.name}" not in hidden]
    return replace(found, observations=Observations.of(rows))


def _used(routing: Routing, sets: Sets) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which demanded signals are known and which are not, as ``type:name``."""
    ok = {
        (kind, name)
        for _, seen in sets
        for kind, name, status in zip(
            seen.observations.type, seen.observations.name, seen.observations.status, strict=True
        )
        if status == _OK
    }
    demanded = routing.demanded_keys.items()
    used = tuple([leaf for key, leaf in demanded if key in ok])
    return used, () if len(used) == len(demanded) else tuple(
        [leaf for key, leaf in demanded if key not in ok]
    )


def _projected(evaluator: Evaluator, vector: Vector) -> Projected:
    if not evaluator.ruleset.scores:
        return _NOTHING
    scores, outputs = evaluator.scores(vector), evaluator.outputs(vector)
    return Projected(tuple(scores), tuple(scores.values()), tuple(outputs), tuple(outputs.values()))


def failed(policy_hash: str, recipe: str, code: str) -> DecisionCore:
    """Return the core of a decision that could not be made at all."""
    return DecisionCore(
        policy_hash, recipe, "failed", code, "", Trace(), (), (), (), "", (), (), (), "", "", 0.0, Facts()
    )


def _selected(case: _Case, rule: DecisionRule, verdict: Verdict) -> DecisionCore:
    policy, selector = case.policy, rule.selector
    candidates = policy.candidates(rule)
    if selector is None:
        return _failed(case, f"algorithm_unsupported:{rule.algorithm.get('type')}")
    if not candidates:
        return _failed(case, "no_candidate")
    odds = selector.odds(candidates)
    salt = selector.salt or f"{case.recipe}/{rule.name}"
    draw = unit(salt, case.request_id, 0, TAG)
    index = pick(odds.propensities, draw)
    names = tuple(c.model for c in candidates)
    propensities, explored = odds.propensities, _UNEXPLORED
    trial = policy.trials.get((case.recipe, rule.name))
    if trial is not None and case.facts.get(FACT) == OPEN:
        propensities = trial.mixed(odds.propensities)
        index, explored = trial.choose(case.request_id, index, names)
    fallbacks = tuple(name for name in dict.fromkeys(names) if name != names[index])
    plan = policy.plan((names[index], *fallbacks))
    if not plan or plan[0].model != names[index]:
        return _failed(case, f"model_not_served:{names[index]}")
    return DecisionCore(
        policy_hash=policy.hash,
        recipe=case.recipe,
        outcome="routed",
        failure="",
        decision=rule.name,
        rule=verdict.trace,
        candidates=names,
        scores=odds.scores,
        propensities=propensities,
        chosen=names[index],
        plan=plan,
        signals_used=case.used,
        signals_missing=case.missing,
        selector=str(type(selector).model_fields["type"].default),
        salt=salt,
        draw=draw,
        facts=case.facts,
        confidence=verdict.confidence,
        matched_rules=verdict.rules,
        projected=case.projected,
        explored=explored,
    )


def _bypassed(case: _Case) -> DecisionCore:
    model = case.facts.get(REQUESTED_MODEL)
    if model not in case.policy.models:
        return _failed(case, "model_not_found")
    return _sole(case, "bypassed", str(model))


def _sole(case: _Case, outcome: str, model: str) -> DecisionCore:
    plan = case.policy.plan((model,))
    if not plan:
        return _failed(case, f"model_not_served:{model}")
    return DecisionCore(
        policy_hash=case.policy.hash,
        recipe=case.recipe,
        outcome=outcome,
        failure="",
        decision="",
        rule=Trace(),
        candidates=(model,),
        scores=(1.0,),
        propensities=(1.0,),
        chosen=model,
        plan=plan,
        signals_used=case.used,
        signals_missing=case.missing,
        selector="",
        salt="",
        draw=0.0,
        facts=case.facts,
        projected=case.projected,
    )


def _failed(case: _Case, code: str) -> DecisionCore:
    core = failed(case.policy.hash, case.recipe, code)
    return replace(
        core,
        signals_used=case.used,
        signals_missing=case.missing,
        facts=case.facts,
        projected=case.projected,
    )
