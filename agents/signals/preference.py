"""A preference that a request expresses, by its similarity to examples."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class Preference(Unhosted):
    """Match when the request is closest to *examples* of this preference."""

    collection: ClassVar[str] = "preferences"
    type: Literal["preference"] = "preference"
    description: str = ""
    examples: tuple[str, ...] = ()
    threshold: float = 0.0
