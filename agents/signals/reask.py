"""A question that is asked again, by the similarity of user turns."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class Reask(Unhosted):
    """Match when the last *lookback_turns* user turns are all as close as *threshold*."""

    collection: ClassVar[str] = "reasks"
    type: Literal["reask"] = "reask"
    description: str = ""
    threshold: float = 0.0
    lookback_turns: int = 0
