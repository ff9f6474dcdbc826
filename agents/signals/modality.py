"""What kind of answer is asked for, by a three-way classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from agents.complaints import Complaint
from agents.signals import Unhosted, signal


@signal
class Modality(Unhosted):
    """Match when text (AR), an image (DIFFUSION) or both are asked for."""

    collection: ClassVar[str] = "modality"
    type: Literal["modality"] = "modality"
    description: str = ""

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over names that are no verdict of the classifier."""
        if self.name not in {"AR", "DIFFUSION", "BOTH"}:
            yield Complaint(("name",), "the name is AR, DIFFUSION or BOTH")
