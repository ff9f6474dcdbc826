"""An entry of the request's metadata map, which its caller wrote and nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from agents.complaints import Complaint
from agents.content import Content
from agents.parts import Part
from agents.signals import NAN, Heuristic, signal
from schemas.signal import Observation

_CONDITIONS = ("equals", "in", "exists")


class MetadataPredicate(Part):
    """What an entry must be: equal to a value, one of several, or there (or not)."""

    equals: str | None = None
    one_of: tuple[str, ...] | None = Field(default=None, alias="in")
    exists: bool | None = None


@signal
class Metadata(Heuristic):
    """Match when entry *key* is as the *predicate* asks.

    Its three conditions may also be written without `predicate`, which is ours.
    """

    collection: ClassVar[str] = "metadata"
    shorthand: ClassVar[tuple[str, ...]] = _CONDITIONS
    """Keys that are understood besides the fields."""
    type: Literal["metadata"] = "metadata"
    description: str = ""
    key: str = ""
    predicate: MetadataPredicate = MetadataPredicate()

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the document holds
        if not isinstance(value, dict) or "predicate" in value or not set(_CONDITIONS) & set(value):
            return value
        rest = {k: v for k, v in value.items() if k not in _CONDITIONS}
        return {**rest, "predicate": {k: v for k, v in value.items() if k in _CONDITIONS}}

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over why the entry cannot be compared."""
        asked = self.predicate
        if self.name != self.name.strip():
            yield Complaint(("name",), "the name has spaces around it")
        if not self.key.strip() or self.key != self.key.strip():
            yield Complaint(("key",), "the key of the entry is missing, or has spaces around it")
        if sum(c is not None for c in (asked.equals, asked.one_of, asked.exists)) != 1 or asked.one_of == ():
            yield Complaint(
                ("predicate",), "exactly one of equals, in, exists is needed, and in needs values"
            )

    def evaluate(self, content: Content) -> Observation:
        """Return whether the entry is as asked; a match is certain, and no match records nothing."""
        matched = self._is_as_asked(content.metadata.get(self.key))
        return self.observed(matched=matched, confidence=1.0 if matched else NAN)

    def _is_as_asked(self, found: str | None) -> bool:
        asked = self.predicate
        if asked.exists is not None:
            return (found is not None) == asked.exists
        wanted = (asked.equals,) if asked.one_of is None else asked.one_of
        return found is not None and found in wanted
