"""Boolean rules over signals: AND, OR, NOT over leaves, evaluated with a trace.

Semantics of the vLLM Semantic Router v0.3: AND is the mean confidence of its children and
stops at the first that fails; OR is its most confident child (the first on ties); NOT has one
child and confidence 1; no conditions under AND match with confidence 0. A leaf whose signal
failed, is late or was never observed is *unknown*, and its `on_unknown` says what that means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from agents.parts import Part
from schemas.decision import MATCH, NO_MATCH, UNKNOWN, Trace
from schemas.signal import Observation

OnUnknown = Literal["no_match", "match", "fail_request"]
Signals = Mapping[tuple[str, str], Observation]
MAX_DEPTH = 32


class SignalUnknown(Exception):
    """A leaf whose rule says fail_request met an unknown signal; *leaf* is ``type:name``."""

    def __init__(self, leaf: str) -> None:
        super().__init__(leaf)
        self.leaf = leaf


class Predicate(Part):
    """Bounds on a signal's number: its value, else its confidence."""

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    def holds(self, number: float) -> bool:
        """Tell whether *number* satisfies every bound; NaN satisfies none."""
        return (
            number == number  # noqa: PLR0124 - false for NaN only
            and (self.gt is None or number > self.gt)
            and (self.gte is None or number >= self.gte)
            and (self.lt is None or number < self.lt)
            and (self.lte is None or number <= self.lte)
        )


class Node(Part):
    """A leaf (it has a type) or an operator over conditions, as written.

    As lenient as the original, which checks little at load: a node with a type is a leaf whatever else
    it has; an operator is compared in upper case and not trimmed; no or an unknown operator is OR. The
    loader's checks and findings tell what cannot be meant.
    """

    type: str = ""
    name: str = ""
    label: str = ""
    predicate: Predicate | None = None
    on_error: str = ""
    on_unknown: OnUnknown = "no_match"
    operator: str = ""
    conditions: tuple[Node, ...] = ()

    @property
    def kind(self) -> str:
        """Return the signal type that a leaf refers to, as it is looked up at run time."""
        return self.type.strip().lower()

    @property
    def operation(self) -> str:
        """Return AND or NOT, and OR for everything else."""
        upper = self.operator.upper()
        return upper if upper in {"AND", "NOT"} else "OR"

    @property
    def is_fallback(self) -> bool:
        """Tell whether this, as the root of a decision's rules, matches always."""
        return not (self.type or self.name or self.operator or self.conditions)

    @property
    def leaf(self) -> str:
        """Return ``type:name``, or ``type:name:label``, as written."""
        return f"{self.type}:{self.name}:{self.label}" if self.label else f"{self.type}:{self.name}"

    @property
    def depth(self) -> int:
        """Return how many levels lie below, a leaf counting 0."""
        return 1 + max((child.depth for child in self.conditions), default=-1)

    def leaves(self) -> Iterator[Node]:
        """Iterate over the leaves below, in order."""
        if self.type:
            yield self
            return
        for child in self.conditions:
            yield from child.leaves()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a node came to; `rows` is the subtree in preorder (kind, leaf, state, confidence, depth)."""

    matched: bool
    confidence: float
    rows: tuple[tuple[str, str, int, float, int], ...]


def evaluate(node: Node, signals: Signals) -> Verdict:
    """Return what *node*, the root of a decision's rules, comes to. Raises `SignalUnknown`."""
    if node.is_fallback:
        return Verdict(matched=True, confidence=0.0, rows=(("fallback", "", MATCH, 0.0, 0),))
    return _evaluate(node, signals, 0)


def trace_of(verdict: Verdict) -> Trace:
    """Return the tree of *verdict* as the log keeps it."""
    return Trace(*zip(*verdict.rows, strict=True))


def _evaluate(node: Node, signals: Signals, depth: int) -> Verdict:
    if node.type:
        return _leaf(node, signals, depth)
    if node.operation == "AND":
        return _and(node, signals, depth)
    if node.operation == "OR":
        return _or(node, signals, depth)
    if len(node.conditions) != 1:
        return _combined("NOT", (), depth, matched=False, confidence=0.0)
    child = _evaluate(node.conditions[0], signals, depth + 1)
    confidence = 0.0 if child.matched else 1.0
    return _combined("NOT", (child,), depth, matched=not child.matched, confidence=confidence)


def _leaf(node: Node, signals: Signals, depth: int) -> Verdict:
    seen = signals.get((node.kind, node.name))
    if seen is None or seen.status != "ok":
        if node.on_unknown == "fail_request":
            raise SignalUnknown(node.leaf)
        matched, confidence, state = node.on_unknown == "match", 0.0, UNKNOWN
    elif node.predicate is not None:
        number = seen.confidence if seen.value != seen.value else seen.value
        matched = node.predicate.holds(number)
        confidence, state = (1.0, MATCH) if matched else (0.0, NO_MATCH)
    elif seen.matched:
        # A signal that records no confidence counts as certain.
        confidence = 1.0 if seen.confidence != seen.confidence else seen.confidence
        matched, state = True, MATCH
    else:
        matched, confidence, state = False, 0.0, NO_MATCH
    return Verdict(matched, confidence, (("leaf", node.leaf, state, confidence, depth),))


def _and(node: Node, signals: Signals, depth: int) -> Verdict:
    children: list[Verdict] = []
    total = 0.0
    for condition in node.conditions:
        child = _evaluate(condition, signals, depth + 1)
        children.append(child)
        if not child.matched:
            return _combined("AND", tuple(children), depth, matched=False, confidence=0.0)
        total += child.confidence
    mean = total / len(children) if children else 0.0
    return _combined("AND", tuple(children), depth, matched=True, confidence=mean)


def _or(node: Node, signals: Signals, depth: int) -> Verdict:
    children = tuple(_evaluate(condition, signals, depth + 1) for condition in node.conditions)
    matched = [child for child in children if child.matched]
    best = max(matched, key=lambda child: child.confidence) if matched else None
    confidence = best.confidence if best is not None else 0.0
    return _combined("OR", children, depth, matched=best is not None, confidence=confidence)


def _combined(
    kind: str, children: tuple[Verdict, ...], depth: int, *, matched: bool, confidence: float
) -> Verdict:
    head = (kind, "", MATCH if matched else NO_MATCH, confidence, depth)
    rows = tuple(row for child in children for row in child.rows)
    return Verdict(matched, confidence, (head, *rows))
