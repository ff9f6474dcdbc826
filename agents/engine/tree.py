"""The tree that both evaluators are made from: rules, derived stages and how a winner is chosen.

Names are those of the configuration; a signal is known by its key, ``type:name`` or
``type:name:label``. Everything is frozen and hashable, and nothing here evaluates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

AND, OR, NOT = "AND", "OR", "NOT"
LEAF, FALLBACK = "leaf", "fallback"

OnUnknown = Literal["no_match", "match", "fail_request"]
Strategy = Literal["priority", "confidence", "fuzzy"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range of numbers; a bound that is None does not hold anything back."""

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    @property
    def given(self) -> tuple[float, ...]:
        """Return the bounds that there are, in the order gt, gte, lt, lte."""
        return tuple(b for b in (self.gt, self.gte, self.lt, self.lte) if b is not None)

    def holds(self, number: float) -> bool:
        """Tell whether *number* is within every bound; NaN is within none, not even of no bounds."""
        return (
            number == number  # noqa: PLR0124 - false for NaN only
            and (self.gt is None or number > self.gt)
            and (self.gte is None or number >= self.gte)
            and (self.lt is None or number < self.lt)
            and (self.lte is None or number <= self.lte)
        )


@dataclass(frozen=True, slots=True)
class Leaf:
    """A condition on one signal.

    `shown` is the signal as written, which matched rules print; `key` is what is looked up, its type
    trimmed and in lower case; `number` is the key of the number that `bounds` are about, with the
    label. `others` are keys that match as well: a domain's categories.
    """

    shown: str
    key: str
    number: str
    bounds: Bounds | None = None
    on_error_match: bool = False
    on_unknown: OnUnknown = "no_match"
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """An operator over conditions: AND, NOT, or OR, which every other operator counts as."""

    operator: str
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Fallback:
    """No rules at all, at the root of a decision: always matches, with confidence 0."""


Node = Leaf | Branch | Fallback


@dataclass(frozen=True, slots=True)
class Rule:
    """One decision: its rules and what orders it among the matched."""

    name: str
    node: Node
    priority: int = 0
    tier: int = 0


@dataclass(frozen=True, slots=True)
class Partition:
    """Signals of one type of which the best is kept; softmax also gives the winner its share."""

    name: str
    kind: str
    members: tuple[str, ...]
    default: str = ""
    softmax: bool = False
    temperature: float = 1.0

    def key(self, member: str) -> str:
        """Return the key of *member*."""
        return f"{self.kind}:{member}"


@dataclass(frozen=True, slots=True)
class Composer:
    """A condition without which the keys *gated* do not match; its leaves have neither numbers nor labels."""

    gated: tuple[str, ...]
    node: Node


Source = Literal["match", "confidence", "raw", "metric", "score"]


@dataclass(frozen=True, slots=True)
class Term:
    """One input of a score: what is read of `key` (a score's name where `source` is score) times `weight`."""

    key: str
    source: Source
    weight: float
    match: float = 1.0
    miss: float = 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """A weighted sum, added from left to right starting with 0."""

    name: str
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """An output that is published where the score lies within `bounds`."""

    name: str
    bounds: Bounds

    @property
    def key(self) -> str:
        """Return the key of the projection."""
        return f"projection:{self.name}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """The bands of score `source`: the first that fits, or all that fit; `slope` gives the confidence."""

    name: str
    source: str
    bands: tuple[Band, ...]
    every: bool = False
    slope: float = 12.0


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All of a recipe's routing that can change which decision wins.

    `scores` come in the order in which they are computed, each followed by its `mappings`.
    `embeddings` are the keys that `top_k` ranks (0 keeps all). `untiered_last` lets tier 1 come
    before none; `threshold` is the degree from which on the strategy ``fuzzy`` matches.
    """

    rules: tuple[Rule, ...] = ()
    strategy: Strategy = "priority"
    partitions: tuple[Partition, ...] = ()
    composers: tuple[Composer, ...] = ()
    embeddings: tuple[str, ...] = ()
    top_k: int = 0
    scores: tuple[Score, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    untiered_last: bool = False
    threshold: float = 0.5

    def mappings_of(self, score: str) -> tuple[Mapping, ...]:
        """Return the mappings of *score* in declaration order."""
        return tuple(m for m in self.mappings if m.source == score)

    @property
    def tiered(self) -> bool:
        """Tell whether some decision has a tier."""
        return any(rule.tier > 0 for rule in self.rules)


def leaves(node: Node) -> Iterator[Leaf]:
    """Iterate over the leaves below *node*, in order."""
    if isinstance(node, Leaf):
        yield node
    elif isinstance(node, Branch):
        for child in node.children:
            yield from leaves(child)
