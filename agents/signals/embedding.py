"""How similar a request is to example phrases, by a hosted sentence encoder.

The score is w * best + (1 - w) * mean of the top two cosines, w = 0.75; with
``aggregation_method: mean`` it is the mean over all phrases, with ``any`` the best alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from agents.content import Content
from agents.signals import Classified, signal
from schemas.signal import Observation

_BEST_WEIGHT = 0.75
_TOP = 2


@signal
class Embedding(Classified):
    """Match when the score against *candidates* reaches *threshold*; confidence is the score."""

    collection: ClassVar[str] = "embeddings"
    role: ClassVar[str] = "embedding"
    classifier: ClassVar[str] = "encoder"
    type: Literal["embedding"] = "embedding"
    threshold: float = 0.0
    candidates: tuple[str, ...] = ()
    image_candidates: tuple[str, ...] = ()
    negative_candidates: tuple[str, ...] = ()
    negative_image_candidates: tuple[str, ...] = ()
    aggregation_method: str = ""
    query_modality: str = ""
    prototype_scoring: Mapping[str, Any] = Field(default_factory=dict)

    def encode(self, content: Content) -> str:
        """Return the last user turn."""
        return content.text

    def references(self) -> Sequence[str]:
        """Return the example phrases."""
        return self.candidates

    def decode(self, vector: NDArray[np.float32], references: NDArray[np.float32]) -> Observation:
        """Return the observation; both arguments are unit vectors, so products are cosines."""
        cosines = sorted((float(c) for c in references @ vector), reverse=True)
        score = self._score(cosines)
        return self.observed(matched=score >= self.threshold, confidence=score, value=score)

    def _score(self, cosines: list[float]) -> float:
        if self.aggregation_method == "mean":
            return sum(cosines) / len(cosines)
        if self.aggregation_method == "any":
            return cosines[0]
        top = cosines[:_TOP]
        return _BEST_WEIGHT * cosines[0] + (1 - _BEST_WEIGHT) * (sum(top) / len(top))
