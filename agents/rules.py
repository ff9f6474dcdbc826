"""Boolean rules over signals: AND, OR, NOT over leaves, evaluated with a trace.

Semantics of the vLLM Semantic Router v0.3: AND is the mean confidence of its children and
stops at the first that fails; OR is its most confident child (the first on ties); NOT has one
child and confidence 1; no conditions under AND match with confidence 0. A leaf whose signal
failed, is late or was never observed is *unknown*, and its `on_unknown` says what that means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

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


class Predicate(BaseModel):
    """Bounds on a signal's number: its value, else its confidence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if all(b is None for b in (self.gt, self.gte, self.lt, self.lte)):
            message = "a predicate needs at least one of gt, gte, lt, lte"
            raise ValueError(message)
        return self

    def holds(self, number: float) -> bool:
        """Tell whether *number* satisfies every bound; NaN satisfies none."""
        return (
            number == number  # noqa: PLR0124 - false for NaN only
            and (self.gt is None or number > self.gt)
            and (self.gte is None or number >= self.gte)
            and (self.lt is None or number < self.lt)
            and (self.lte is None or number <= self.lte)
        )


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Operator = Annotated[Literal["AND", "OR", "NOT"], BeforeValidator(_upper)]


class Node(BaseModel):
    """A leaf (type and name) or an operator over conditions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    type: str | None = None
    name: str | None = None
    predicate: Predicate | None = None
    on_unknown: OnUnknown = "no_match"
    operator: Operator | None = None
    conditions: tuple[Node, ...] = ()

    @model_validator(mode="after")
    def _leaf_or_operator(self) -> Self:
        if self.type is not None:
            if self.name is None or self.operator is not None or self.conditions:
                message = "a leaf has a type and a name, and neither operator nor conditions"
                raise ValueError(message)
        elif self.operator is None:
            message = "a rule is a leaf {type, name} or {operator: AND|OR|NOT, conditions: [...]}"
            raise ValueError(message)
        elif self.name is not None or self.predicate is not None:
            message = "an operator has conditions, and neither name nor predicate"
            raise ValueError(message)
        elif self.operator == "NOT" and len(self.conditions) != 1:
            message = f"NOT takes exactly one condition, not {len(self.conditions)}"
            raise ValueError(message)
        return self

    @property
    def leaf(self) -> str:
        """Return ``type:name``."""
        return f"{self.type}:{self.name}"

    @property
    def depth(self) -> int:
        """Return how many levels lie below, a leaf counting 0."""
        return 1 + max((child.depth for child in self.conditions), default=-1)

    def leaves(self) -> Iterator[Node]:
        """Iterate over the leaves below, in order."""
        if self.type is not None:
            yield self
        for child in self.conditions:
            yield from child.leaves()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a node came to; `rows` is the subtree in preorder (kind, leaf, state, confidence, depth)."""

    matched: bool
    confidence: float
    rows: tuple[tuple[str, str, int, float, int], ...]


def evaluate(node: Node | None, signals: Signals) -> Verdict:
    """Return what *node* comes to; None is the fallback. Raises `SignalUnknown`."""
    if node is None:
        return Verdict(matched=True, confidence=0.0, rows=(("fallback", "", MATCH, 0.0, 0),))
    return _evaluate(node, signals, 0)


def trace_of(verdict: Verdict) -> Trace:
    """Return the tree of *verdict* as the log keeps it."""
    return Trace(*zip(*verdict.rows, strict=True))


def _evaluate(node: Node, signals: Signals, depth: int) -> Verdict:
    if node.type is not None:
        return _leaf(node, signals, depth)
    if node.operator == "AND":
        return _and(node, signals, depth)
    if node.operator == "OR":
        return _or(node, signals, depth)
    child = _evaluate(node.conditions[0], signals, depth + 1)
    confidence = 0.0 if child.matched else 1.0
    return _combined("NOT", (child,), depth, matched=not child.matched, confidence=confidence)


def _leaf(node: Node, signals: Signals, depth: int) -> Verdict:
    seen = signals.get((node.type or "", node.name or ""))
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
