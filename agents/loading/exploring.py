"""What a policy's exploration and shadow signals are refused for, and what is odd in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agents.complaints import Complaint, Oddity, Path
from agents.exploration import planned_usd
from agents.exploration_model import Explored
from agents.policy_model import leaf_key
from agents.signals import Unhosted

if TYPE_CHECKING:
    from agents.policy import Policy
    from agents.policy_model import Decision

_HERE = "exploration"


def of_exploration(policy: Policy) -> Iterator[Complaint]:
    """Iterate over what the exploration of *policy* is refused for."""
    exploration = policy.exploration
    if exploration is None:
        return
    if exploration.max_extra_usd_per_day is None and exploration.decisions:
        message = "exploring needs a cap: max_extra_usd_per_day, in USD a day (UTC)"
        yield Complaint((_HERE,), message)
    known = _decisions(policy)
    for name, found in exploration.decisions.items():
        for complaint in _of_decision(policy, known.get(name), found):
            yield complaint.below(_HERE, "decisions", name)


def _of_decision(policy: Policy, rule: Decision | None, found: Explored) -> Iterator[Complaint]:
    if rule is None:
        yield Complaint((), "no decision has this name; those of a recipe are recipe/name")
        return
    if rule.safety:
        yield Complaint((), f"{rule.name!r} is marked as safety, and a safety decision explores nothing")
    names = {candidate.model for candidate in policy.candidates(rule)}
    if not found.candidates:
        yield Complaint(("candidates",), "the candidates to explore are needed, such as [incumbent, other]")
    for index, name in enumerate(found.candidates):
        if name not in names:
            yield Complaint(("candidates", index), f"{name!r} is no candidate of {rule.name!r}")


def _decisions(policy: Policy) -> dict[str, Decision]:
    """Return every decision by the name that exploration has for it."""
    found = {rule.name: rule for rule in policy.routing.decisions}
    for recipe in policy.recipes:
        found |= {f"{recipe.name.strip()}/{rule.name}": rule for rule in recipe.routing.decisions}
    return found


def of_shadow_signals(policy: Policy) -> Iterator[Complaint]:
    """Iterate over what the shadow signals of *policy* are refused for."""
    keys = (leaf_key(config) for _, routing in policy.scopes for config in routing.declared)
    declared = {f"{kind}:{name}" for kind, name in keys}
    for key in policy.shadow_signals:
        if key not in declared:
            yield Complaint(("shadow_signals", key), "no signal is declared as this type:name")


def odd_shadow_signals(policy: Policy) -> Iterator[Oddity]:
    """Iterate over the shadow signals of *policy* that have no effect."""
    observed = {
        f"{kind}:{name}": config
        for _, routing in policy.scopes
        for config, _ in routing.beside(policy.shadow_signals)
        for kind, name in [leaf_key(config)]
    }
    for key, rate in policy.shadow_signals.items():
        config = observed.get(key)
        if rate > 0.0 and config is None:
            message = "decisions demand it, so it is observed of every request"
            yield Oddity(("shadow_signals", key), "demanded-anyhow", message, "no shadow of it")
        elif isinstance(config, Unhosted):
            yield Oddity(("shadow_signals", key), "not-hosted", f"{config.why}: it is observed as failed")


def odd_exploration(policy: Policy) -> Iterator[Oddity]:
    """Iterate over what the exploration of *policy* does that its writer can hardly mean."""
    exploration = policy.exploration
    if exploration is None:
        return
    known = _decisions(policy)
    for name, found in exploration.decisions.items():
        where: Path = (_HERE, "decisions", name)
        rule = known.get(name)
        if rule is None or not found.candidates:
            continue
        served = [model for model in found.candidates if policy.plan((model,))]
        candidates = policy.candidates(rule)
        if found.epsilon <= 0.0 or not served:
            yield Oddity(where, "explores-nothing", "nothing is ever explored", "epsilon, and served models")
        elif rule.selector is None:
            message = "the decision's algorithm is not here yet, so it tries nobody"
            yield Oddity(where, "explores-nothing", message, "static or weighted as its algorithm")
        elif len(candidates) > 1:
            odds = dict(
                zip([c.model for c in candidates], rule.selector.odds(candidates).propensities, strict=True)
            )
            if all(odds.get(model) == 1.0 for model in served):
                message = "only the model that answers anyhow is explored"
                yield Oddity((*where, "candidates"), "explores-nothing", message, "another candidate")
        free = [model for model in served if planned_usd(policy, exploration, model) <= 0.0]
        if free:
            message = f"{free[0]!r} has no price, so the cap cannot see what it costs"
            yield Oddity((*where, "candidates"), "unpriced", message, "pricing of the model")
    cap = exploration.max_extra_usd_per_day
    if cap is not None and policy.trials and cap < policy.dearest_trial:
        message = f"one request can cost {policy.dearest_trial:.6g} USD more than not to explore"
        yield Oddity((_HERE, "max_extra_usd_per_day"), "never-affordable", message, "a higher cap")
