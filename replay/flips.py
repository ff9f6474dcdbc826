"""The smallest change of signals that changes a decision.

Exact within its bounds: sets of one signal, then two, and so on up to `most` are tried in full, so
the first that works is smallest. A signal can be made to match (without a recorded confidence), not to
match, or, where rules or scores read a number of it, to have the nearest number on the other side of
a bound. What else could change, such as a confidence between two bounds, is not tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product

from agents.engine.scalar import Evaluator
from agents.engine.slots import LEVELLED
from agents.engine.stages import NAN, Vector
from agents.engine.tracing import SignalUnknown
from agents.engine.tree import Bounds, leaves

FAILED = "(the request fails)"
NONE = "(no decision)"


@dataclass(frozen=True, slots=True)
class Change:
    """One signal, as it was and as it would have to be: match, no match, unknown, or a number."""

    signal: str
    was: str
    now: str


@dataclass(frozen=True, slots=True)
class Flip:
    """A smallest set of changes and the decision that they lead to."""

    changes: tuple[Change, ...]
    decision: str


@dataclass(frozen=True, slots=True)
class Search:
    """What was found: nothing up to `size` changes, or flips of that size; `complete` if all were tried."""

    flips: tuple[Flip, ...]
    size: int
    tried: int
    complete: bool


@dataclass(frozen=True, slots=True)
class _Option:
    """Another state of one slot."""

    slot: int
    change: Change
    matched: bool
    value: float


def smallest_flips(
    evaluator: Evaluator, vector: Vector, *, most: int = 3, tries: int = 200_000, shown: int = 8
) -> Search:
    """Return the smallest sets of changes to *vector*, which no stage has touched, that change the decision.

    At most *most* changes at once and *tries* evaluations; of several flips the first *shown*.
    """
    before = _decision(evaluator, vector)
    options = [found for slot in _observable(evaluator) if (found := list(_options(evaluator, vector, slot)))]
    tried = 0
    for size in range(1, most + 1):
        flips: list[Flip] = []
        for changes in _sets(options, size):
            if tried >= tries:
                return Search(tuple(flips), size, tried, complete=False)
            tried += 1
            after = _decision(evaluator, _changed(vector, changes))
            if after != before and len(flips) < shown:
                flips.append(Flip(tuple(option.change for option in changes), after))
        if flips:
            return Search(tuple(flips), size, tried, complete=True)
    return Search((), most, tried, complete=True)


def _sets(options: list[list[_Option]], size: int) -> Iterator[tuple[_Option, ...]]:
    for slots in combinations(options, size):
        yield from product(*slots)


def _decision(evaluator: Evaluator, vector: Vector) -> str:
    """Return the name of what is decided; *vector* is left as it is."""
    copy = replace(
        vector,
        matched=list(vector.matched),
        confidence=list(vector.confidence),
        value=list(vector.value),
        unknown=list(vector.unknown),
    )
    try:
        winner = evaluator.choose(copy).rule
    except SignalUnknown:
        return FAILED
    return evaluator.ruleset.rules[winner].name if winner >= 0 else NONE


def _changed(vector: Vector, options: tuple[_Option, ...]) -> Vector:
    matched, confidence, value = list(vector.matched), list(vector.confidence), list(vector.value)
    unknown = list(vector.unknown)
    for option in options:
        matched[option.slot], unknown[option.slot] = option.matched, False
        if option.value == option.value:  # NaN leaves the number as it was
            value[option.slot] = option.value
        elif option.matched != vector.matched[option.slot]:
            confidence[option.slot] = NAN
    return replace(vector, matched=matched, confidence=confidence, value=value, unknown=unknown)


def _observable(evaluator: Evaluator) -> Iterator[int]:
    """Iterate over the slots that a signal is observed in and that can change the decision."""
    slots = evaluator.slots
    levels = {key for key in slots.keys if key.startswith(LEVELLED)}
    bases = {key.rpartition(":")[0] for key in levels}
    for slot, key in enumerate(slots.keys):
        if key and key not in slots.published and key not in bases:
            yield slot


def _options(evaluator: Evaluator, vector: Vector, slot: int) -> Iterator[_Option]:
    """Iterate over the other states that *slot* could be in."""
    key = evaluator.slots.keys[slot]
    bounds = _bounds(evaluator).get(key, ())
    matched, unknown = vector.matched[slot], vector.unknown[slot]
    was = "unknown" if unknown else "match" if matched else "no match"
    number = vector.value[slot]
    number = vector.confidence[slot] if math.isnan(number) else number
    if _is_matched_on(evaluator, key):
        for now in (True, False):
            if unknown or now != matched:
                said = "match" if now else "no match"
                yield _Option(slot, Change(key, was, said), now, NAN)
    for candidate in dict.fromkeys(edge for bound in bounds for edge in _edges(bound)):
        if candidate != number:
            told = f"{was}, no number" if math.isnan(number) else f"{number:g}"
            yield _Option(slot, Change(key, told, f"{candidate!r}"), matched, candidate)


def _edges(bounds: Bounds) -> Iterator[float]:
    """Iterate over the numbers next to each bound, on either side."""
    for bound in bounds.given:
        yield bound
        yield math.nextafter(bound, -math.inf)
        yield math.nextafter(bound, math.inf)


def _bounds(evaluator: Evaluator) -> Mapping[str, tuple[Bounds, ...]]:
    """Return the predicates on each key's number."""
    found: dict[str, tuple[Bounds, ...]] = {}
    for rule in evaluator.ruleset.rules:
        for leaf in leaves(rule.node):
            if leaf.bounds is not None:
                found[leaf.number] = (*found.get(leaf.number, ()), leaf.bounds)
    return found


def _is_matched_on(evaluator: Evaluator, key: str) -> bool:
    """Tell whether anything asks whether *key* matches: its number alone is read otherwise."""
    ruleset = evaluator.ruleset
    asked = {k for r in ruleset.rules for x in leaves(r.node) if x.bounds is None for k in (x.key, *x.others)}
    asked |= {partition.key(m) for partition in ruleset.partitions for m in partition.members}
    asked |= {leaf.key for composer in ruleset.composers for leaf in leaves(composer.node)}
    asked |= {
        term.key for score in ruleset.scores for term in score.terms if term.source in {"match", "confidence"}
    }
    return key in asked or (bool(ruleset.top_k) and key in ruleset.embeddings)
