"""What a request is about, by a classifier of the 14 classes of MMLU-Pro."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.parts import Part
from agents.signals import Unhosted, signal


class ModelScore(Part):
    """How good a model is in a domain."""

    model: str = ""
    score: float = 0.0
    use_reasoning: bool = False


@signal
class Domain(Unhosted):
    """Match when a detected class is this one or one of *mmlu_categories*."""

    collection: ClassVar[str] = "domains"
    type: Literal["domain"] = "domain"
    description: str = ""
    mmlu_categories: tuple[str, ...] = ()
    model_scores: tuple[ModelScore, ...] = ()
