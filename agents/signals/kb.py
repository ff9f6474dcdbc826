"""Labels and groups of a knowledge base of exemplars, by similarity."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.parts import Part
from agents.signals import Unhosted, signal


class Target(Part):
    """A label or a group of a knowledge base."""

    kind: str = ""
    value: str = ""


@signal
class Kb(Unhosted):
    """Match when the *target* of knowledge base *kb* is the best one, or reaches its threshold."""

    collection: ClassVar[str] = "kb"
    type: Literal["kb"] = "kb"
    kb: str = ""
    target: Target = Target()
    match: str = ""
