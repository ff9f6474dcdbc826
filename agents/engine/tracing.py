"""How a decision came about: every condition that was looked at, what it came to, and the rules that matched.

Conditions behind the first that fails under AND are not looked at and have no row. The functions
are closures over one decision's nodes; they repeat what the generated function computes, for one
decision and with every step told, and a property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agents.engine.slots import Slots
from agents.engine.stages import Vector
from agents.engine.tree import AND, FALLBACK, LEAF, NOT, OR, Bounds, Branch, Fallback, Leaf, Node
from schemas.decision import MATCH, NO_MATCH, UNKNOWN, UNKNOWN_MATCH, Trace

Row = tuple[str, str, int, float, int]
"""Kind, leaf as written, state, confidence, depth."""
Outcome = tuple[bool, float, tuple[str, ...]]
"""Whether it matched, how certainly (its degree under fuzzy), and the rules that it hands up."""
Step = Callable[[Vector, list[Row]], Outcome]

_UNSEEN: Row = ("", "", NO_MATCH, 0.0, 0)


class SignalUnknown(Exception):
    """A leaf whose rule says fail_request met an unknown signal; *leaf* is the signal as written."""

    def __init__(self, leaf: str) -> None:
        super().__init__(leaf)
        self.leaf = leaf


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a decision's rules came to; `rows` is the tree in preorder, `rules` what matched in its order."""

    matched: bool
    confidence: float
    rules: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def trace(self) -> Trace:
        """Return the tree as the log keeps it."""
        return Trace(*zip(*self.rows, strict=True)) if self.rows else Trace()


class Tracer:
    """The rules of one decision, compiled; *fuzzy* is the threshold of the strategy of that name, or None."""

    def __init__(self, node: Node, slots: Slots, fuzzy: float | None) -> None:
        self._step = _root(node, slots, fuzzy)

    def __call__(self, vector: Vector) -> Verdict:
        """Return what the decision comes to for the derived *vector*; raises `SignalUnknown`."""
        rows: list[Row] = []
        matched, confidence, rules = self._step(vector, rows)
        return Verdict(matched, confidence, rules if matched else (), tuple(rows))


def _root(node: Node, slots: Slots, fuzzy: float | None) -> Step:
    if not isinstance(node, Fallback):
        return _compiled(node, slots, fuzzy, 0)
    row: Row = (FALLBACK, "", MATCH, 0.0, 0)

    def step(vector: Vector, rows: list[Row]) -> Outcome:
        del vector
        rows.append(row)
        return True, 0.0, ()

    return step


def _compiled(node: Node, slots: Slots, fuzzy: float | None, depth: int) -> Step:
    if isinstance(node, Leaf):
        return _leaf(node, slots, fuzzy, depth)
    children = node.children if isinstance(node, Branch) else ()
    operator = node.operator if isinstance(node, Branch) else OR
    steps = tuple(_compiled(child, slots, fuzzy, depth + 1) for child in children)
    if operator == NOT and len(steps) != 1:
        return _row_of(lambda _vector, _rows: (False, 0.0, ()), NOT, depth)
    if fuzzy is not None:
        return _row_of(_fuzzy(operator, steps, fuzzy), operator, depth)
    make = {AND: _and, NOT: _not}.get(operator, _or)
    return _row_of(make(steps), operator, depth)


def _row_of(inner: Step, kind: str, depth: int) -> Step:
    """Return *inner* with a row of its own before those below it."""

    def step(vector: Vector, rows: list[Row]) -> Outcome:
        place = len(rows)
        rows.append(_UNSEEN)
        outcome = inner(vector, rows)
        rows[place] = (kind, "", MATCH if outcome[0] else NO_MATCH, outcome[1], depth)
        return outcome

    return step


def _leaf(leaf: Leaf, slots: Slots, fuzzy: float | None, depth: int) -> Step:
    slot = slots.index[leaf.key]
    others = tuple(slots.index[key] for key in leaf.others)
    measured = None if leaf.bounds is None else _measured(leaf, leaf.bounds, slots)
    shown, rules = leaf.shown, (leaf.shown,)
    fails, passes = leaf.on_unknown == "fail_request", leaf.on_unknown == "match"
    passed = 0.0 if fuzzy is None else 1.0

    def step(vector: Vector, rows: list[Row]) -> Outcome:
        unknown = vector.unknown[slot]
        if unknown and fails:
            raise SignalUnknown(shown)
        confidence = 0.0
        if measured is not None:
            matched = measured(vector)
            confidence = 1.0 if matched else 0.0
        elif vector.matched[slot] or any(vector.matched[other] for other in others):
            matched, unknown = True, False
            recorded = vector.confidence[slot]
            confidence = recorded if recorded == recorded else 1.0  # noqa: PLR0124 - NaN is none
        else:
            matched = unknown and passes
            confidence = passed if matched else 0.0
        if fuzzy is not None:
            confidence = 0.0 if confidence < 0.0 else min(confidence, 1.0)
            matched = confidence >= fuzzy
        state = (NO_MATCH, MATCH, UNKNOWN, UNKNOWN_MATCH)[2 * unknown + matched]
        rows.append((LEAF, shown, state, confidence, depth))
        return matched, confidence, rules if matched else ()

    return step


def _measured(leaf: Leaf, bounds: Bounds, slots: Slots) -> Callable[[Vector], bool]:
    """Return what tells whether the number of *leaf* is within its *bounds*."""
    slot, number = slots.index[leaf.key], slots.index[leaf.number]
    passes = leaf.on_error_match or leaf.on_unknown == "match"

    def holds(vector: Vector) -> bool:
        found = vector.value[number]
        if found != found:  # noqa: PLR0124 - NaN is none
            found = vector.confidence[number]
        if found != found:  # noqa: PLR0124 - NaN is none
            return passes and vector.unknown[slot]
        return bounds.holds(found)

    return holds


def _and(steps: tuple[Step, ...]) -> Step:
    def step(vector: Vector, rows: list[Row]) -> Outcome:
        total = 0.0
        rules: tuple[str, ...] = ()
        for child in steps:
            matched, confidence, below = child(vector, rows)
            if not matched:
                return False, 0.0, ()
            total += confidence
            rules += below
        return True, total / len(steps) if steps else 0.0, rules

    return step


def _or(steps: tuple[Step, ...]) -> Step:
    def step(vector: Vector, rows: list[Row]) -> Outcome:
        best: Outcome = (False, 0.0, ())
        for child in steps:
            outcome = child(vector, rows)
            if outcome[0] and (not best[0] or outcome[1] > best[1]):
                best = outcome
        return best

    return step


def _not(steps: tuple[Step, ...]) -> Step:
    (child,) = steps

    def step(vector: Vector, rows: list[Row]) -> Outcome:
        matched, confidence, rules = child(vector, rows)
        # The child's rules are handed up, so that NOT NOT x reports x, as in the original.
        return (False, confidence, rules) if matched else (True, 1.0, rules)

    return step


def _fuzzy(operator: str, steps: tuple[Step, ...], threshold: float) -> Step:
    """Return the step of *operator* in Zadeh's logic: AND is the least, OR the greatest, NOT 1 - x."""

    def step(vector: Vector, rows: list[Row]) -> Outcome:
        outcomes = [child(vector, rows) for child in steps]
        if operator == NOT:
            degree, rules = 1.0 - outcomes[0][1], outcomes[0][2]
            return degree >= threshold, degree, rules
        if operator == AND:
            degree = min((o[1] for o in outcomes), default=1.0)
            return degree >= threshold, degree, tuple(rule for o in outcomes for rule in o[2])
        best = max(outcomes, key=lambda o: o[1], default=(False, 0.0, ()))
        return best[1] >= threshold, best[1], best[2]

    return step
