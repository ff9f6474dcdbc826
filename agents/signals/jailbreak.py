"""Attempts to talk a model out of its rules, by a classifier or by contrast of examples."""

from __future__ import annotations

from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class Jailbreak(Unhosted):
    """Match when the classifier's score, or the contrast to *benign_patterns*, reaches *threshold*."""

    collection: ClassVar[str] = "jailbreak"
    type: Literal["jailbreak"] = "jailbreak"
    description: str = ""
    method: str = ""
    threshold: float = 0.0
    include_history: bool = False
    jailbreak_patterns: tuple[str, ...] = ()
    benign_patterns: tuple[str, ...] = ()
    direction: str = ""
