"""A draw in proportion to the weights of the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from agents.selectors import Candidate, Odds, SelectorConfig, selector


@selector
class Weighted(SelectorConfig):
    """Choose a candidate with probability weight / sum of weights."""

    type: Literal["weighted"] = "weighted"

    def odds(self, candidates: Sequence[Candidate]) -> Odds:
        """Return the weights and their shares; all-zero weights count as equal ones."""
        weights = [c.weight for c in candidates]
        total = 0.0
        for weight in weights:
            total += weight
        if total <= 0.0:
            weights, total = [1.0] * len(candidates), float(len(candidates))
        return Odds(tuple(weights), tuple(w / total for w in weights))
