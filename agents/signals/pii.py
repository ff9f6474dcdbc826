"""Personal data in a request, by a classifier of tokens."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class Pii(Unhosted):
    """Match when an entity that is not allowed is found with a score of *threshold* or more."""

    collection: ClassVar[str] = "pii"
    type: Literal["pii"] = "pii"
    description: str = ""
    threshold: float = 0.0
    pii_types_allowed: tuple[str, ...] = ()
    include_history: bool = False
