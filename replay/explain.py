"""Why a request went where it went, as plain values: names, numbers and states, never what was asked.

Nothing here copies a body, an answer, a header's value or a provider's message.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, cast

from replay.trail import Found, Trail
from schemas.completion import Completion, Result
from schemas.dead_letter import DeadLetter
from schemas.decision import MATCH, NO_MATCH, UNKNOWN, UNKNOWN_MATCH, Facts, Trace
from schemas.feedback import Feedback
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.sealed import Body, Claim, Sealed
from schemas.signal import Observations

STATES = {
    NO_MATCH: "no_match",
    MATCH: "match",
    UNKNOWN: "unknown",
    UNKNOWN_MATCH: "unknown_match",
}
_ID_BYTES = 16
# Text that people or providers wrote, and copies of other records' bytes.
_WITHHELD: dict[type, frozenset[str]] = {
    Result: frozenset({"error_message"}),
    DeadLetter: frozenset({"key", "value", "headers"}),
}


@dataclass(frozen=True, slots=True)
class RuleNode:
    """A node of the winner's rule tree; `leaf` is ``type:name`` or empty."""

    kind: str
    leaf: str
    state: str
    confidence: float
    children: tuple[RuleNode, ...]


@dataclass(frozen=True, slots=True)
class Hop:
    """A moment in the life of a request; `after_ms` counts from its admission."""

    what: str
    at: int
    after_ms: int


def rule_tree(trace: Trace) -> RuleNode | None:
    """Return the tree that *trace* holds in preorder, or None for an empty one."""
    columns = (trace.kind, trace.leaf, trace.state, trace.confidence, trace.depth)
    roots = _children(trace, 0, min(len(column) for column in columns))
    return roots[0] if roots else None


def _children(trace: Trace, start: int, end: int) -> tuple[RuleNode, ...]:
    """Return the nodes of [start, end) at the depth of the first, each with what lies below it."""
    if start >= end:
        return ()
    level = trace.depth[start]
    heads = [i for i in range(start, end) if trace.depth[i] == level]
    ends = [*heads[1:], end]
    return tuple(
        RuleNode(
            trace.kind[i],
            trace.leaf[i],
            STATES.get(trace.state[i], "unknown"),
            trace.confidence[i],
            _children(trace, i + 1, stop),
        )
        for i, stop in zip(heads, ends, strict=True)
    )


def hops(trail: Trail) -> tuple[Hop, ...]:
    """Return when each thing happened to the request, in order of time."""
    start = _start(trail)
    moments = sorted(_moments(trail), key=lambda pair: pair[1])
    return tuple(Hop(what, at, at - start) for what, at in moments)


def _start(trail: Trail) -> int:
    anchor = trail.request or trail.result
    return int(anchor.record.accepted_at) if anchor else min(f.timestamp for f in trail.found)


def _moments(trail: Trail) -> Iterator[tuple[str, int]]:
    if trail.request:
        yield "accepted", trail.request.record.accepted_at
        yield "request in the log", trail.request.timestamp
    for found in trail.signals:
        yield f"signals of {found.record.role} in the log", found.timestamp
    if trail.decision:
        yield "decided", trail.decision.record.meta.decided_at
        yield "decision in the log", trail.decision.timestamp
    for found in trail.of(Job):
        yield f"job {_attempt(found)} in the log", found.timestamp
    for found in trail.of(AttemptStarted):
        yield f"attempt {_attempt(found)} started at {found.record.provider}", found.record.started_at
    for found in trail.of(AttemptEnded):
        yield f"attempt {_attempt(found)} ended: {found.record.outcome}", found.record.ended_at
    for found in trail.of(DeadLetter):
        yield f"given up by {found.record.stage}", found.record.died_at
    if trail.result:
        yield "result", trail.result.record.finished_at


def _attempt(found: Found) -> str:
    r = found.record
    return f"{r.step}.{r.branch}.{r.attempt}"


def outcome(trail: Trail) -> str:
    """Return answered, failed, dead_lettered or pending."""
    if trail.result:
        return "failed" if trail.result.record.error_code else "answered"
    return "dead_lettered" if trail.of(DeadLetter) else "pending"


def as_json(trail: Trail) -> dict[str, Any]:
    """Return the whole explanation as plain values; an absent number is None."""
    decision = _shown(trail.decision)
    if trail.decision:
        tree = rule_tree(trail.decision.record.core.rule)
        decision = {**(decision or {}), "rule_tree": tree and plain(tree)}
    return {
        "request_id": trail.request_id.hex(),
        "outcome": outcome(trail),
        "request": _shown(trail.request),
        "signals": [_shown(f) for f in trail.signals],
        "decision": decision,
        "jobs": _all(trail.of(Job)),
        "attempts": _all((*trail.of(AttemptStarted), *trail.of(AttemptEnded))),
        "completions": _all(trail.of(Completion)),
        "result": _shown(trail.result),
        "dead_letters": _all(trail.of(DeadLetter)),
        "feedback": _all(trail.of(Feedback)),
        "collapsed": [{"record": type(f.record).__name__, **_place(f)} for f in trail.collapsed],
        "timing": [plain(hop) for hop in hops(trail)],
    }


def _all(found: Sequence[Found]) -> list[Any]:
    return [_shown(f) for f in found]


def _place(found: Found) -> dict[str, Any]:
    return {
        "topic": found.topic,
        "partition": found.partition,
        "offset": found.offset,
        "timestamp": found.timestamp,
    }


def _shown(found: Found | None) -> dict[str, Any] | None:
    if found is None:
        return None
    row: dict[str, Any] = {
        "record": type(found.record).__name__,
        "at": _place(found),
        **cast("dict[str, Any]", plain(found.record)),
    }
    return row


@singledispatch
def plain(value: object) -> object:
    """Return *value* as plain values, without anything that could quote a request or its answer."""
    if not dataclasses.is_dataclass(value):
        return value
    withheld = _WITHHELD.get(type(value), frozenset())
    names = [f.name for f in dataclasses.fields(value) if f.name not in withheld]
    return {name: plain(getattr(value, name)) for name in names}


@plain.register(Sealed)
@plain.register(Claim)
def _(value: Sealed | Claim) -> object:
    return {"withheld": True, "alg": value.alg}


@plain.register
def _(value: Body) -> object:
    return {"withheld": True, "size": value.size}


@plain.register
def _(value: bytes) -> object:
    return value.hex() if len(value) == _ID_BYTES else {"withheld": True, "size": len(value)}


@plain.register
def _(value: Observations) -> object:
    # Not the value's own iterator: even a ragged record, which nobody should write, can be shown.
    names = [f.name for f in dataclasses.fields(value)]
    rows = zip(*(getattr(value, name) for name in names), strict=False)
    return [{name: plain(inner) for name, inner in zip(names, row, strict=True)} for row in rows]


@plain.register
def _(value: Facts) -> object:
    return dict(zip(value.name, value.value, strict=False))


@plain.register(tuple)
def _(value: tuple[Any, ...]) -> object:
    return [plain(inner) for inner in value]


@plain.register
def _(value: float) -> object:
    return None if math.isnan(value) else value
