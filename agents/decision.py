"""Rules to candidates to a choice: the decision proper, a function of its arguments alone."""

from __future__ import annotations

from collections.abc import Sequence

from agents.draw import pick, unit
from agents.policy import Policy
from agents.policy_model import Decision as DecisionRule
from agents.policy_model import Routing
from agents.rules import Signals, SignalUnknown, Verdict, evaluate, trace_of
from schemas.decision import DecisionCore, Facts, Trace
from schemas.signal import SignalSet

Sets = Sequence[tuple[str, SignalSet]]
REQUESTED_MODEL = "requested_model"
_TAG = "selection"


def facts_of(requested_model: str) -> Facts:
    """Return the facts that a decision reads besides its signals."""
    return Facts((REQUESTED_MODEL,), (requested_model,))


def decide(policy: Policy, *, recipe: str, request_id: bytes, sets: Sets, facts: Facts) -> DecisionCore:
    """Return the decision of *policy* over the SignalSets *sets* (role, set) and *facts*."""
    routing = policy.routing_of(recipe)
    if routing is None:
        return _bypassed(policy, recipe, facts)
    signals: Signals = {(o.type, o.name): o for _, observed in sets for o in observed.observations}
    ok = {key for key, seen in signals.items() if seen.status == "ok"}
    used = tuple(leaf for key, leaf in routing.demanded_keys.items() if key in ok)
    missing = tuple(leaf for key, leaf in routing.demanded_keys.items() if key not in ok)
    try:
        won = _winner(routing, signals)
    except SignalUnknown as unknown:
        return _failed(policy, recipe, f"signal_unknown:{unknown.leaf}", used, missing, facts)
    if won is None:
        default = policy.providers.defaults.default_model
        if not default:
            return _failed(policy, recipe, "no_decision", used, missing, facts)
        return _sole(policy, recipe, "default", default, used, missing, facts)
    return _selected(policy, recipe, request_id, won, used, missing, facts)


def failed(policy_hash: str, recipe: str, code: str) -> DecisionCore:
    """Return the core of a decision that could not be made at all."""
    return DecisionCore(
        policy_hash, recipe, "failed", code, "", Trace(), (), (), (), "", (), (), (), "", "", 0.0, Facts()
    )


def _winner(routing: Routing, signals: Signals) -> tuple[DecisionRule, Verdict] | None:
    """Return the matched decision of highest priority, then confidence, then first by name."""
    matched = [(d, v) for d in routing.decisions if (v := evaluate(d.rules, signals)).matched]
    if not matched:
        return None
    return min(matched, key=lambda pair: (-pair[0].priority, -pair[1].confidence, pair[0].name.encode()))


def _selected(  # noqa: PLR0913 - the parts of one record
    policy: Policy,
    recipe: str,
    request_id: bytes,
    won: tuple[DecisionRule, Verdict],
    used: tuple[str, ...],
    missing: tuple[str, ...],
    facts: Facts,
) -> DecisionCore:
    rule, verdict = won
    candidates, selector = policy.candidates(rule), rule.selector
    if selector is None:
        code = f"algorithm_unsupported:{rule.algorithm.get('type')}"
        return _failed(policy, recipe, code, used, missing, facts)
    if not candidates:
        return _failed(policy, recipe, "no_candidate", used, missing, facts)
    odds = selector.odds(candidates)
    salt = selector.salt or f"{recipe}/{rule.name}"
    draw = unit(salt, request_id, 0, _TAG)
    index = pick(odds.propensities, draw)
    names = tuple(c.model for c in candidates)
    fallbacks = tuple(name for name in dict.fromkeys(names) if name != names[index])
    plan = policy.plan((names[index], *fallbacks))
    if not plan or plan[0].model != names[index]:
        return _failed(policy, recipe, f"model_not_served:{names[index]}", used, missing, facts)
    return DecisionCore(
        policy_hash=policy.hash,
        recipe=recipe,
        outcome="routed",
        failure="",
        decision=rule.name,
        rule=trace_of(verdict),
        candidates=names,
        scores=odds.scores,
        propensities=odds.propensities,
        chosen=names[index],
        plan=plan,
        signals_used=used,
        signals_missing=missing,
        selector=str(type(selector).model_fields["type"].default),
        salt=salt,
        draw=draw,
        facts=facts,
    )


def _bypassed(policy: Policy, recipe: str, facts: Facts) -> DecisionCore:
    model = facts.get(REQUESTED_MODEL)
    if model not in policy.models:
        return _failed(policy, recipe, "model_not_found", (), (), facts)
    return _sole(policy, recipe, "bypassed", str(model), (), (), facts)


def _sole(  # noqa: PLR0913 - the parts of one record
    policy: Policy,
    recipe: str,
    outcome: str,
    model: str,
    used: tuple[str, ...],
    missing: tuple[str, ...],
    facts: Facts,
) -> DecisionCore:
    plan = policy.plan((model,))
    if not plan:
        return _failed(policy, recipe, f"model_not_served:{model}", used, missing, facts)
    return DecisionCore(
        policy_hash=policy.hash,
        recipe=recipe,
        outcome=outcome,
        failure="",
        decision="",
        rule=Trace(),
        candidates=(model,),
        scores=(1.0,),
        propensities=(1.0,),
        chosen=model,
        plan=plan,
        signals_used=used,
        signals_missing=missing,
        selector="",
        salt="",
        draw=0.0,
        facts=facts,
    )


def _failed(  # noqa: PLR0913 - the parts of one record
    policy: Policy,
    recipe: str,
    code: str,
    used: tuple[str, ...],
    missing: tuple[str, ...],
    facts: Facts,
) -> DecisionCore:
    return DecisionCore(
        policy.hash,
        recipe,
        "failed",
        code,
        "",
        Trace(),
        (),
        (),
        (),
        "",
        (),
        used,
        missing,
        "",
        "",
        0.0,
        facts,
    )
