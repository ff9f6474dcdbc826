"""What another policy would have done with the logged signals of a request, and what would flip it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agents.decision import REQUESTED_MODEL, decide
from agents.errors import RouterError
from agents.policy import Policy
from agents.policy_model import BYPASS
from replay.explain import plain, rule_tree
from replay.flips import Search, smallest_flips
from replay.trail import Trail
from schemas.decision import DecisionCore

Json = dict[str, Any]


class UndecidedError(RouterError):
    """The log holds no decision of the request, so there is nothing to compare with."""


def what_if(found: Trail, policy: Policy) -> Json:
    """Return the decision of *policy* over the logged signals of *found*, beside the logged one.

    A signal that the log does not hold is unknown. Raises `UndecidedError`.
    """
    if found.decision is None:
        raise UndecidedError(f"the log holds no decision of request {found.request_id.hex()} yet")
    logged: DecisionCore = found.decision.record.core
    recipe = recipe_of(logged.facts.get(REQUESTED_MODEL) or "", logged.recipe, policy)
    sets = [(seen.record.role, seen.record) for seen in found.signals]
    would = decide(policy, recipe=recipe, request_id=found.request_id, sets=sets, facts=logged.facts)
    same = (logged.decision, logged.chosen, logged.outcome) == (would.decision, would.chosen, would.outcome)
    answer: Json = {
        "policy": policy.hash,
        "logged": _shown(logged),
        "would": _shown(would),
        "same": same,
        "flips": None,
    }
    evaluator = policy.evaluators.get(recipe)
    if evaluator is not None:
        ordered = sorted(sets, key=lambda pair: pair[0])
        vector = evaluator.vector([record.observations for _, record in ordered])
        answer["flips"] = _told(smallest_flips(evaluator, vector))
    return answer


def recipe_of(requested_model: str, logged_recipe: str, policy: Policy) -> str:
    """Return the recipe that *policy* runs for the model that was asked for, else the root's."""
    found = policy.recipe_for(requested_model)
    return found if found is not None else BYPASS if logged_recipe == BYPASS else ""


def _shown(core: DecisionCore) -> Json:
    tree = rule_tree(core.rule)
    return {
        "policy_hash": core.policy_hash,
        "recipe": core.recipe,
        "outcome": core.outcome,
        "failure": core.failure,
        "decision": core.decision,
        "confidence": core.confidence,
        "matched_rules": list(core.matched_rules),
        "candidates": list(core.candidates),
        "chosen": core.chosen,
        "rule_tree": tree and plain(tree),
        "signals_missing": list(core.signals_missing),
    }


def _told(search: Search) -> Json:
    return {
        "changes_at_once": search.size,
        "tried": search.tried,
        "complete": search.complete,
        "smallest": [asdict(flip) for flip in search.flips],
    }


def lines_of(answer: Json) -> list[str]:
    """Return *answer* as lines to read."""
    logged, would = answer["logged"], answer["would"]
    same = " (the same)" if answer["same"] else ""
    lines = [
        f"logged under {logged['policy_hash'][:12]}: {_outcome(logged)}",
        f"would be under {would['policy_hash'][:12]}: {_outcome(would)}{same}",
    ]
    if would["matched_rules"]:
        lines.append(f"  matched rules: {', '.join(would['matched_rules'])}")
    if would["signals_missing"]:
        lines.append(f"  not in the log, so unknown: {', '.join(would['signals_missing'])}")
    flips = answer["flips"]
    if flips is None:
        return lines
    for flip in flips["smallest"]:
        changes = "; ".join(f"{c['signal']}: {c['was']} -> {c['now']}" for c in flip["changes"])
        lines.append(f"  flips to {flip['decision']} by {changes}")
    if not flips["smallest"]:
        until = (
            f"up to {flips['changes_at_once']} changes" if flips["complete"] else f"{flips['tried']} tries"
        )
        lines.append(f"  no change of signals within {until} flips it")
    return lines


def _outcome(shown: Json) -> str:
    if shown["outcome"] == "failed":
        return f"failed with {shown['failure']}"
    name = shown["decision"] or shown["outcome"]
    return f"{name} -> {shown['chosen']}, confidence {shown['confidence']:.4g}"
