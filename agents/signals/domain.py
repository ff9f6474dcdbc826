"""What a request is about, by a classifier of the 14 classes of MMLU-Pro."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from agents.complaints import Complaint
from agents.parts import Part
from agents.signals import Unhosted, signal

CATEGORIES = frozenset(
    {
        "biology",
        "business",
        "chemistry",
        "computer science",
        "economics",
        "engineering",
        "health",
        "history",
        "law",
        "math",
        "other",
        "philosophy",
        "physics",
        "psychology",
    }
)


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

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over categories that the classifier does not know."""
        for index, category in enumerate(self.mmlu_categories):
            if category.strip().lower() not in CATEGORIES:
                yield Complaint(("mmlu_categories", index), f"{category!r} is no category of MMLU-Pro")
