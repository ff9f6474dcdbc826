"""Rules as configured: AND, OR, NOT over leaves; `agents.engine` says what they come to.

A leaf whose signal failed, is late or was never observed is *unknown*, and its `on_unknown` says what
that means.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from agents.parts import Part

OnUnknown = Literal["no_match", "match", "fail_request"]
MAX_DEPTH = 32


class Predicate(Part):
    """Bounds on a signal's number: its value, else its confidence."""

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    def holds(self, number: float) -> bool:
        """Tell whether *number* is within every bound; NaN is within none."""
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
