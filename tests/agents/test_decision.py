"""The decision: which rule wins, who is chosen, and everything that the record must say of it."""

import hashlib
from collections import Counter
from typing import Any

import orjson
import pytest

from agents.decision import decide, facts_of, failed
from agents.draw import unit
from agents.policy import Policy
from schemas.decision import DecisionCore
from schemas.identity import Origin
from schemas.signal import Observation, Observations, SignalSet
from tests.agents.samples import POLICY, observation, policy

ID = bytes(16)
PROVIDERS = {"models": [{"name": n, "backend_refs": [{"name": "p"}]} for n in ("x", "y", "z")]}


def ruled(*decisions: dict[str, Any], default: str = "") -> Policy:
    """Return a policy of *decisions* over the keyword signals a, b and c and the models x, y and z."""
    signals = {"keywords": [{"name": n, "operator": "OR", "keywords": [n]} for n in "abc"]}
    providers = {**PROVIDERS, "defaults": {"default_model": default}}
    routing = {"signals": signals, "decisions": list(decisions)}
    return Policy.loads(orjson.dumps({"providers": providers, "routing": routing}).decode())


def rule(name: str, signal: str, model: str, priority: int = 0, **more: Any) -> dict[str, Any]:
    """Return a decision on one keyword signal."""
    leaf = {"type": "keyword", "name": signal, **more}
    return {"name": name, "priority": priority, "rules": leaf, "modelRefs": [{"model": model}]}


def decided(under: Policy, *seen: Observation, recipe: str = "", request_id: bytes = ID) -> DecisionCore:
    """Return the decision of *under* over the observations *seen* of the heuristics."""
    found = SignalSet(
        request_id, Origin(0, 0), "heuristics", under.hash, recipe, Observations.of(list(seen)), 0, 0
    )
    sets = [("heuristics", found)] if seen else []
    return decide(under, recipe=recipe, request_id=request_id, sets=sets, facts=facts_of("auto"))


def hit(name: str, confidence: float = float("nan")) -> Observation:
    """Return a match of keyword signal *name*."""
    return observation("keyword", name, matched=True, confidence=confidence)


def test_the_highest_priority_wins() -> None:
    """Of two rules that match, the one of higher priority decides, whatever its confidence."""
    under = ruled(rule("low", "a", "x", 1), rule("high", "b", "y", 2))

    assert decided(under, hit("a", 1.0), hit("b", 0.1)).chosen == "y"


def test_confidence_breaks_ties_of_priority() -> None:
    """Of equal priorities the more confident rule decides."""
    under = ruled(rule("one", "a", "x"), rule("two", "b", "y"))

    assert decided(under, hit("a", 0.4), hit("b", 0.6)).decision == "two"
    assert decided(under, hit("a", 0.6), hit("b", 0.4)).decision == "one"


def test_names_break_ties_of_confidence() -> None:
    """Of equal priority and confidence the first by name decides, whatever the order in the file."""
    rules = [rule("b", "a", "x"), rule("a", "b", "y"), rule("B", "c", "z")]
    seen = [hit("a"), hit("b"), hit("c")]

    assert decided(ruled(*rules), *seen).decision == "B"
    assert decided(ruled(*reversed(rules)), *seen).decision == "B"


def test_nothing_matched_goes_to_the_default_model() -> None:
    """Without a match the default model answers; without a default the decision fails and says so."""
    with_default = decided(ruled(rule("one", "a", "x"), default="z"), observation("keyword", "a"))
    without = decided(ruled(rule("one", "a", "x")), observation("keyword", "a"))

    assert (with_default.outcome, with_default.chosen, with_default.propensities) == ("default", "z", (1.0,))
    assert (without.outcome, without.failure, without.plan) == ("failed", "no_decision", ())


def test_an_unknown_signal_may_fail_the_request() -> None:
    """fail_request becomes a failed decision that names the signal."""
    core = decided(ruled(rule("one", "a", "x", on_unknown="fail_request"), default="z"))

    assert (core.outcome, core.failure) == ("failed", "signal_unknown:keyword:a")
    assert core.signals_missing == ("keyword:a", "keyword:b", "keyword:c")


def test_signals_used_and_missing_are_listed() -> None:
    """A demanded signal is used if it was observed, and missing if it failed or never came."""
    under = ruled(rule("1", "c", "x"), rule("2", "a", "x"), rule("3", "b", "x"), default="z")
    core = decided(under, hit("a"), observation("keyword", "b", status="failed"))

    assert core.signals_used == ("keyword:a",)
    assert core.signals_missing == ("keyword:b", "keyword:c")


def test_the_whole_propensity_vector_is_logged() -> None:
    """Candidates, scores and propensities align, and the draw is the hash of the request."""
    urgent = hit("urgent")
    core = decided(policy(), urgent)

    assert core.candidates == ("small", "large")
    assert core.scores == (3.0, 1.0)
    assert core.propensities == (0.75, 0.25)
    assert (core.selector, core.salt) == ("weighted", "a")
    assert core.draw == unit("a", ID, 0, "selection")
    assert core.rule.leaf == ("keyword:urgent",)


def test_choices_follow_the_propensities() -> None:
    """Over 4,000 requests the share of the first candidate is its propensity."""
    ids = [hashlib.sha256(b"%d" % n).digest()[:16] for n in range(4000)]
    under = policy()
    chosen = Counter(decided(under, hit("urgent"), request_id=i).chosen for i in ids)

    assert abs(chosen["small"] - 3000) < 4 * (4000 * 0.75 * 0.25) ** 0.5


def test_the_plan_is_the_choice_and_then_the_others() -> None:
    """The plan starts with the chosen model, and every other candidate follows in order."""
    under = policy()
    core = decided(under, hit("urgent"))

    assert core.plan[0].model == core.chosen
    assert {step.model for step in core.plan} == {"small", "large"}
    assert [(s.attempts, s.call_timeout_ms) for s in core.plan] == [(2, 7000), (2, 7000)]


def test_a_named_model_bypasses_routing() -> None:
    """A request for a backend's own name is not routed, and the decision says so."""
    under = policy()
    recipe = under.recipe_for("large")
    core = decide(under, recipe=str(recipe), request_id=ID, sets=[], facts=facts_of("large"))
    gone = decide(under, recipe=str(recipe), request_id=ID, sets=[], facts=facts_of("gone"))

    assert (core.outcome, core.chosen, core.decision) == ("bypassed", "large", "")
    assert (gone.outcome, gone.failure) == ("failed", "model_not_found")


def test_a_recipe_is_its_own_world() -> None:
    """A recipe's decisions are evaluated, not the root's."""
    assert decided(policy(), hit("urgent"), recipe="lab").decision == "all"


def test_a_recipe_is_found_whatever_surrounds_its_name() -> None:
    """White space around a recipe's name is no part of it, in an entrypoint or in the recipe itself."""
    under = policy(POLICY.replace("name: lab\n", "name: ' lab '\n"))
    recipe = under.recipe_for("lab-model")

    assert under.recipes[0].name == " lab "
    assert decided(under, hit("urgent"), recipe=str(recipe)).decision == "all"


def test_a_decision_depends_on_nothing_but_its_arguments() -> None:
    """A policy that was read back decides as the one that was parsed, to the last field."""
    under = policy()

    assert decided(Policy.loads(under.normal_form), hit("urgent")) == decided(under, hit("urgent"))


@pytest.mark.parametrize("code", ["dead_lettered"])
def test_a_decision_that_could_not_be_made_has_no_plan(code: str) -> None:
    """The core of a failure names its code and no model."""
    core = failed("h", "", code)

    assert (core.outcome, core.failure, core.chosen, core.plan) == ("failed", code, "", ())
