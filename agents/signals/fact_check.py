"""Whether an answer would need its facts checked, by a binary sentinel."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class FactCheck(Unhosted):
    """Match when the sentinel's verdict is the one that this signal is named after."""

    collection: ClassVar[str] = "fact_check"
    type: Literal["fact_check"] = "fact_check"
    description: str = ""
