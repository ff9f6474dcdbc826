"""Labels that a policy defines itself, by a local classifier or a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from agents.signals import Unhosted, signal


@signal
class Classifier(Unhosted):
    """A score per label; leaves name a label and give a predicate."""

    collection: ClassVar[str] = "classifiers"
    written_as: ClassVar[Mapping[str, str]] = {"kind": "type"}
    type: Literal["classifier"] = "classifier"
    description: str = ""
    kind: str = ""
    model: str = ""
    model_path: str = ""
    labels: tuple[str, ...] = ()
    instructions: str = ""
    use_cpu: bool = False
    disable_rationale: bool = False
