"""The smallest change of signals that flips a decision is found, and nothing smaller exists."""

from __future__ import annotations

from typing import Any

from agents.engine.reading import ruleset_of
from agents.engine.scalar import OK, Evaluator
from replay.flips import FAILED, NONE, Search, smallest_flips
from replay.vectors import of_entries


def flips(rules: list[dict[str, Any]], **more: Any) -> Search:
    """Return what flips the decisions *rules* (named d0, d1, ...) over the signals ``seen`` of *more*."""
    decisions = [{"name": f"d{i}", "priority": -i, "rules": node} for i, node in enumerate(rules)]
    evaluator = Evaluator(ruleset_of({"decisions": decisions}))
    vector = evaluator.vector([of_entries(more.pop("seen", {}), "here")], absent=OK)
    return smallest_flips(evaluator, vector, **more)


def leaf(name: str, **more: Any) -> dict[str, Any]:
    """Return a leaf over keyword *name*."""
    return {"type": "keyword", "name": name, **more}


def test_one_signal_is_enough_where_one_is() -> None:
    """An OR flips by any of its conditions alone."""
    found = flips([{"operator": "OR", "conditions": [leaf("a"), leaf("b")]}])

    assert (found.size, found.complete) == (1, True)
    assert [(f.changes[0].signal, f.changes[0].now, f.decision) for f in found.flips] == [
        ("keyword:a", "match", "d0"),
        ("keyword:b", "match", "d0"),
    ]


def test_an_and_of_three_needs_all_three() -> None:
    """Nothing smaller than the three together flips it."""
    found = flips([{"operator": "AND", "conditions": [leaf("a"), leaf("b"), leaf("c")]}])

    assert (found.size, len(found.flips)) == (3, 1)
    assert {change.signal for change in found.flips[0].changes} == {"keyword:a", "keyword:b", "keyword:c"}


def test_a_number_moves_just_over_the_bound() -> None:
    """The nearest number on the other side is told."""
    found = flips([leaf("a", predicate={"gt": 0.5})], seen={"keyword:a": {"matched": True, "value": 0.4}})

    assert found.flips[0].changes[0].was == "0.4"
    assert float(found.flips[0].changes[0].now) > 0.5
    assert found.flips[0].decision == "d0"


def test_losing_a_match_leads_to_the_next_decision_or_to_none() -> None:
    """What follows is whatever the policy then decides."""
    seen = {"keyword:a": {"matched": True}, "keyword:b": {"matched": True}}

    assert [f.decision for f in flips([leaf("a"), leaf("b")], seen=seen).flips] == ["d1"]
    assert [f.decision for f in flips([leaf("a")], seen=seen).flips] == [NONE]


def test_knowing_what_was_unknown_can_flip_a_failed_request() -> None:
    """A request that fails by fail_request is decided once its signal is known."""
    seen = {"keyword:a": {"error": "down"}}
    found = flips([leaf("a", on_unknown="fail_request")], seen=seen)

    assert {f.decision for f in found.flips} == {"d0", NONE}
    assert {f.changes[0].was for f in found.flips} == {"unknown"}
    assert FAILED not in {f.decision for f in found.flips}


def test_the_end_of_the_search_is_told() -> None:
    """Without a flip within the bounds there is none to report, and whether all was tried is known."""
    deep = {"operator": "AND", "conditions": [leaf(name) for name in "abcd"]}

    assert (flips([deep], most=3).flips, flips([deep], most=3).complete) == ((), True)
    assert flips([deep], tries=3).complete is False
