"""Labels that a policy defines itself, by a local classifier or a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from agents.complaints import Complaint
from agents.signals import Unhosted, signal

_BINARY = 2


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

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over what keeps the classifier from being asked."""
        if ":" in self.name:
            yield Complaint(("name",), "a classifier's name has no colon, which leads to its labels")
        if not self.labels or any(not label.strip() for label in self.labels):
            yield Complaint(("labels",), "labels are needed, and none may be empty")
        elif len(set(self.labels)) < len(self.labels):
            yield Complaint((), "a label is there twice")
        if self.kind == "local":
            yield from self._local()
        elif self.kind == "llm":
            yield from self._asked()
        else:
            yield Complaint(("type",), "the type is local or llm")

    def _local(self) -> Iterator[Complaint]:
        if self.model or self.instructions:
            yield Complaint((), "a local classifier takes no model and no instructions")
        # The package names the model of some by their binding, and they have as many labels as that has.
        bound = not self.model_path.strip()
        if bound:
            yield Complaint((), "a local classifier needs model_path", portable=True)
        if len(self.labels) != _BINARY:
            yield Complaint((), "a local classifier has exactly two labels", portable=bound)

    def _asked(self) -> Iterator[Complaint]:
        if not self.model.strip() or not self.instructions.strip():
            yield Complaint((), "an llm classifier needs model and instructions")
        if self.model_path or self.use_cpu:
            yield Complaint((), "an llm classifier takes no model_path and no use_cpu")
