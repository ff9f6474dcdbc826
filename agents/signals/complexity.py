"""How hard a request is, by its similarity to hard and to easy examples.

A `composer` gates the verdict by a rule over other signals, evaluated after the partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from agents.parts import Part
from agents.rules import Node
from agents.signals import Unhosted, signal


class Examples(Part):
    """Texts and images that stand for one end of the scale."""

    candidates: tuple[str, ...] = ()
    image_candidates: tuple[str, ...] = ()


@signal
class Complexity(Unhosted):
    """Match ``name:hard``, ``name:medium`` or ``name:easy`` by the margin between the two."""

    collection: ClassVar[str] = "complexity"
    type: Literal["complexity"] = "complexity"
    description: str = ""
    threshold: float = 0.0
    hard: Examples = Examples()
    easy: Examples = Examples()
    hard_above: float | None = None
    easy_below: float | None = None
    hard_below: float | None = None
    easy_above: float | None = None
    prototype_scoring: Mapping[str, Any] = Field(default_factory=dict)
    composer: Node | None = None

    def names(self) -> tuple[str, ...]:
        """Return the name with each of its three levels."""
        return tuple(f"{self.name}:{level}" for level in ("hard", "medium", "easy"))

    def conditions(self) -> Iterator[Node]:
        """Iterate over the leaves of the composer."""
        return self.composer.leaves() if self.composer is not None else iter(())
