"""Hazards in a request, by a classifier with a taxonomy."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.parts import Part
from agents.signals import Unhosted, signal


class Hazard(Part):
    """Which classes of the taxonomy count, and from which score."""

    model: str = ""
    labels: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    threshold: float = 0.0


@signal
class Safety(Unhosted):
    """Match when an unsafe label, or a class of *hazard*, reaches its threshold."""

    collection: ClassVar[str] = "safety"
    type: Literal["safety"] = "safety"
    description: str = ""
    model: str = ""
    labels: tuple[str, ...] = ()
    unsafe_labels: tuple[str, ...] = ()
    threshold: float = 0.0
    hazard: Hazard | None = None
