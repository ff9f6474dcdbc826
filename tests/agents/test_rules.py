"""Boolean rules as configured: what operators, predicates and unknown signals mean."""

from typing import Any

import pytest
from pydantic import ValidationError

from agents.engine.reading import bounds_of, ruleset_of
from agents.engine.scalar import Evaluator
from agents.engine.tracing import SignalUnknown, Verdict
from agents.rules import Node, Predicate
from agents.signals import NAN
from schemas.decision import NO_MATCH, UNKNOWN
from schemas.signal import Observations
from tests.agents.samples import observation


def leaf(name: str, **more: Any) -> dict[str, Any]:
    """Return a leaf over signal t:*name*."""
    return {"type": "t", "name": name, **more}


def evaluated(rule: dict[str, Any], **matched: bool | None) -> Verdict:
    """Return what *rule* comes to; None stands for a signal that failed."""
    written = Node.model_validate(rule).model_dump()
    evaluator = Evaluator(ruleset_of({"decisions": [{"name": "d", "rules": written}]}))
    seen = [
        observation("t", name, matched=bool(m), status="ok" if m is not None else "failed")
        for name, m in matched.items()
    ]
    vector = evaluator.vector([Observations.of(seen)])
    evaluator.choose(vector)
    return evaluator.explain(vector, 0)


def verdict_of(rule: dict[str, Any], **matched: bool | None) -> tuple[bool, float]:
    """Return whether *rule* matches and how certainly."""
    verdict = evaluated(rule, **matched)
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
    verdict = evaluated({})

    assert (verdict.matched, verdict.confidence) == (True, 0.0)
    assert verdict.trace.kind == ("fallback",)


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
    rule = {"operator": "NOT", "conditions": [leaf("a", on_unknown="fail_request")]}

    with pytest.raises(SignalUnknown) as caught:
        evaluated(rule)
    assert caught.value.leaf == "t:a"


def test_and_does_not_look_behind_the_first_that_fails() -> None:
    """A condition behind one that does not match is not evaluated, even if it would fail the request."""
    rule = {"operator": "AND", "conditions": [leaf("a"), leaf("b", on_unknown="fail_request")]}

    assert verdict_of(rule, a=False, b=None) == (False, 0.0)


def test_an_unknown_leaf_shows_in_the_trace() -> None:
    """The trace tells an unknown signal from one that did not match."""
    trace = evaluated({"operator": "OR", "conditions": [leaf("a"), leaf("b")]}, a=False).trace

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
    assert bounds_of(Predicate.model_validate(bounds).model_dump()).holds(number) is holds


@pytest.mark.parametrize(
    "rule", [leaf("a", predicate={"gt": float("inf")}), leaf("a", on_unknown="perhaps"), leaf("a", extra=1)]
)
def test_what_is_no_rule_is_refused(rule: dict[str, Any]) -> None:
    """Bounds are finite, keys and what an unknown signal means are known ones."""
    with pytest.raises(ValidationError):
        Node.model_validate(rule)
