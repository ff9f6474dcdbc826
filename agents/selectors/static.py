"""The first candidate, always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from agents.selectors import Candidate, Odds, SelectorConfig, selector


@selector
class Static(SelectorConfig):
    """Choose the first candidate that the decision lists."""

    type: Literal["static"] = "static"

    def odds(self, candidates: Sequence[Candidate]) -> Odds:
        """Return 1 for the first of *candidates* and 0 for the others."""
        ones = tuple(1.0 if index == 0 else 0.0 for index in range(len(candidates)))
        return Odds(ones, ones)
