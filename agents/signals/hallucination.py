"""Claims of an answer that its sources do not support, by a classifier of tokens."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class Hallucination(Unhosted):
    """A check of answers; no decision about a request can refer to it."""

    collection: ClassVar[str] = "hallucination"
    type: Literal["hallucination"] = "hallucination"
    description: str = ""
    use_nli: bool = False
