"""What kind of answer is asked for, by a three-way classifier."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class Modality(Unhosted):
    """Match when text (AR), an image (DIFFUSION) or both are asked for."""

    collection: ClassVar[str] = "modality"
    type: Literal["modality"] = "modality"
    description: str = ""
