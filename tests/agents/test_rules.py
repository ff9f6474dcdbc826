"""Boolean rules: the evaluator against a naive reference, and what unknown signals mean."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.rules import Node, Predicate, SignalUnknown, evaluate, trace_of
from agents.signals import NAN
from schemas.decision import MATCH, NO_MATCH, UNKNOWN
from schemas.signal import Observation
from tests.agents.samples import observation

NAMES = ("a", "b", "c", "d")
Signals = Mapping[tuple[str, str], Observation]


def naive(rule: dict[str, Any], signals: Signals) -> tuple[bool, float]:
    """Return match and confidence of *rule*, written as directly as the words of the semantics."""
    if "type" in rule:
        return naive_leaf(rule, signals)
    operator, found = rule["operator"], []
    for condition in rule["conditions"]:
        found.append(naive(condition, signals))
        if operator == "AND" and not found[-1][0]:
            return False, 0.0
    if operator == "NOT":
        return (False, 0.0) if found[0][0] else (True, 1.0)
    if operator == "AND":
        return True, sum(c for _, c in found) / len(found) if found else 0.0
    matched = [c for m, c in found if m]
    return bool(matched), max(matched, default=0.0)


def naive_leaf(rule: dict[str, Any], signals: Signals) -> tuple[bool, float]:
    """Return match and confidence of a leaf."""
    seen = signals.get((rule["type"], rule["name"]))
    if seen is None or seen.status != "ok":
        if rule["on_unknown"] == "fail_request":
            raise SignalUnknown("")
        return rule["on_unknown"] == "match", 0.0
    if "predicate" in rule:
        number = seen.confidence if math.isnan(seen.value) else seen.value
        return (True, 1.0) if number > rule["predicate"]["gt"] else (False, 0.0)
    if not seen.matched:
        return False, 0.0
    return True, 1.0 if math.isnan(seen.confidence) else seen.confidence


leaves = st.fixed_dictionaries(
    {"type": st.just("t"), "name": st.sampled_from(NAMES)}
    | {"on_unknown": st.sampled_from(["no_match", "match", "fail_request"])},
    optional={"predicate": st.fixed_dictionaries({"gt": st.sampled_from([0.2, 0.5])})},
)
rules = st.recursive(
    leaves,
    lambda children: st.one_of(
        st.fixed_dictionaries(
            {"operator": st.sampled_from(["AND", "OR"]), "conditions": st.lists(children, max_size=4)}
        ),
        st.fixed_dictionaries(
            {"operator": st.just("NOT"), "conditions": st.lists(children, min_size=1, max_size=1)}
        ),
    ),
    max_leaves=12,
)
numbers = st.sampled_from([NAN, 0.0, 0.25, 0.5, 0.75, 1.0])
observations = st.builds(
    lambda name, matched, confidence, value, status: observation(
        "t", name, matched=matched, confidence=confidence, value=value, status=status
    ),
    st.sampled_from(NAMES),
    st.booleans(),
    numbers,
    numbers,
    st.sampled_from(["ok", "ok", "ok", "failed", "skipped"]),
)


@settings(max_examples=400)
@given(rules, st.lists(observations, max_size=4))
def test_a_rule_comes_to_what_the_naive_evaluator_says(rule: dict[str, Any], seen: list[Observation]) -> None:
    """Match, confidence and refusal are those of a reference written without traces."""
    signals = {(o.type, o.name): o for o in seen}
    try:
        wanted: tuple[bool, float] | None = naive(rule, signals)
    except SignalUnknown:
        wanted = None
    if wanted is None:
        with pytest.raises(SignalUnknown):
            evaluate(Node.model_validate(rule), signals)
        return
    verdict = evaluate(Node.model_validate(rule), signals)

    assert (verdict.matched, verdict.confidence) == wanted


@settings(max_examples=200)
@given(rules, st.lists(observations, max_size=4))
def test_the_trace_is_the_tree_in_preorder(rule: dict[str, Any], seen: list[Observation]) -> None:
    """The first row is the root; depth rises by one at most; the root's state is the verdict's."""
    signals = {(o.type, o.name): o for o in seen}
    try:
        verdict = evaluate(Node.model_validate(rule), signals)
    except SignalUnknown:
        return
    trace = trace_of(verdict)

    assert trace.depth[0] == 0
    assert all(b <= a + 1 for a, b in zip(trace.depth, trace.depth[1:], strict=False))
    assert min(trace.depth[1:], default=1) >= 1
    assert trace.state[0] in {(MATCH if verdict.matched else NO_MATCH), UNKNOWN}
    assert trace.confidence[0] == verdict.confidence


def leaf(name: str, **more: Any) -> dict[str, Any]:
    """Return a leaf over signal t:*name*."""
    return {"type": "t", "name": name, **more}


def verdict_of(rule: dict[str, Any], **matched: bool | None) -> tuple[bool, float]:
    """Return what *rule* comes to; None stands for a signal that failed."""
    signals = {
        ("t", name): observation("t", name, matched=bool(m), status="ok" if m is not None else "failed")
        for name, m in matched.items()
    }
    verdict = evaluate(Node.model_validate(rule), signals)
    return verdict.matched, verdict.confidence


@pytest.mark.parametrize("a", [False, True])
@pytest.mark.parametrize("b", [False, True])
def test_truth_tables(*, a: bool, b: bool) -> None:
    """AND, OR and NOT are the Boolean functions of their names."""
    both = [leaf("a"), leaf("b")]

    assert verdict_of({"operator": "AND", "conditions": both}, a=a, b=b)[0] == (a and b)
    assert verdict_of({"operator": "OR", "conditions": both}, a=a, b=b)[0] == (a or b)
    assert verdict_of({"operator": "NOT", "conditions": both[:1]}, a=a)[0] == (not a)


def test_an_operator_may_be_written_in_lower_case() -> None:
    """Files in the wild write `and`; it means AND."""
    assert Node.model_validate({"operator": "and", "conditions": []}).operation == "AND"


def test_no_conditions_under_and_match_without_confidence() -> None:
    """AND of nothing matches with confidence 0, OR of nothing does not match."""
    assert verdict_of({"operator": "AND", "conditions": []}) == (True, 0.0)
    assert verdict_of({"operator": "OR", "conditions": []}) == (False, 0.0)


def test_no_rule_is_the_fallback() -> None:
    """A decision without rules matches with confidence 0 and says that it is the fallback."""
    verdict = evaluate(Node(), {})

    assert (verdict.matched, verdict.confidence) == (True, 0.0)
    assert trace_of(verdict).kind == ("fallback",)


@pytest.mark.parametrize(
    ("on_unknown", "plain", "negated"),
    [("no_match", (False, 0.0), (True, 1.0)), ("match", (True, 0.0), (False, 0.0))],
)
def test_unknown_is_settled_at_the_leaf_also_below_a_not(
    on_unknown: str, plain: tuple[bool, float], negated: tuple[bool, float]
) -> None:
    """A leaf says what its unknown signal means; a NOT above it negates that, as it negates any match."""
    unknown = leaf("a", on_unknown=on_unknown)

    assert verdict_of(unknown, a=None) == plain
    assert verdict_of({"operator": "NOT", "conditions": [unknown]}, a=None) == negated


def test_an_unknown_signal_can_fail_the_request() -> None:
    """fail_request stops the evaluation and names the leaf, below a NOT too."""
    rule = Node.model_validate({"operator": "NOT", "conditions": [leaf("a", on_unknown="fail_request")]})

    with pytest.raises(SignalUnknown) as caught:
        evaluate(rule, {})
    assert caught.value.leaf == "t:a"


def test_and_does_not_look_behind_the_first_that_fails() -> None:
    """A condition behind one that does not match is not evaluated, even if it would fail the request."""
    rule = {"operator": "AND", "conditions": [leaf("a"), leaf("b", on_unknown="fail_request")]}

    assert verdict_of(rule, a=False, b=None) == (False, 0.0)


def test_an_unknown_leaf_shows_in_the_trace() -> None:
    """The trace tells an unknown signal from one that did not match."""
    rule = Node.model_validate({"operator": "OR", "conditions": [leaf("a"), leaf("b")]})
    trace = trace_of(evaluate(rule, {("t", "a"): observation("t", "a")}))

    assert trace.state == (NO_MATCH, NO_MATCH, UNKNOWN)
    assert trace.leaf == ("", "t:a", "t:b")


@pytest.mark.parametrize(
    ("bounds", "number", "holds"),
    [
        ({"gt": 1}, 1.0, False),
        ({"gte": 1}, 1.0, True),
        ({"lt": 1}, 1.0, False),
        ({"lte": 1}, 1.0, True),
        ({"gt": 0, "lt": 1}, 0.5, True),
        ({"gt": 0, "lt": 1}, 1.5, False),
        ({"lt": 1}, NAN, False),
        ({"gte": -1}, NAN, False),
    ],
)
def test_predicates_hold_within_all_bounds(bounds: dict[str, float], number: float, *, holds: bool) -> None:
    """Every bound must hold, and an absent number satisfies none."""
    assert Predicate.model_validate(bounds).holds(number) is holds


@pytest.mark.parametrize(
    "rule", [leaf("a", predicate={"gt": float("inf")}), leaf("a", on_unknown="perhaps"), leaf("a", extra=1)]
)
def test_what_is_no_rule_is_refused(rule: dict[str, Any]) -> None:
    """Bounds are finite, keys and what an unknown signal means are known ones."""
    with pytest.raises(ValidationError):
        Node.model_validate(rule)
