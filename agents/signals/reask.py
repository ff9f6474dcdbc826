"""A question that is asked again, by the similarity of user turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from agents.complaints import Complaint
from agents.signals import Unhosted, signal


@signal
class Reask(Unhosted):
    """Match when the last *lookback_turns* user turns are all as close as *threshold*."""

    collection: ClassVar[str] = "reasks"
    type: Literal["reask"] = "reask"
    description: str = ""
    threshold: float = 0.0
    lookback_turns: int = 0

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over numbers out of range; 0 stands for the default (0.8, and 1 turn)."""
        if not 0.0 <= self.threshold <= 1.0:
            yield Complaint(("threshold",), "the threshold lies between 0 and 1")
        if self.lookback_turns < 0:
            yield Complaint(("lookback_turns",), "at least one turn is looked back")
