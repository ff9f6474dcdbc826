"""An entry of the request's metadata map, which its caller wrote and nobody vouches for."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from agents.content import Content
from agents.signals import Heuristic, signal
from schemas.signal import Observation


@signal
class Metadata(Heuristic):
    """Match when entry *key* equals a value, is one of several, or exists (or does not)."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    collection: ClassVar[str] = "metadata"
    type: Literal["metadata"] = "metadata"
    key: str
    equals: str | None = None
    one_of: tuple[str, ...] | None = Field(default=None, alias="in")
    exists: bool | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if sum(c is not None for c in (self.equals, self.one_of, self.exists)) != 1:
            message = f"metadata {self.name!r} needs exactly one of equals, in, exists"
            raise ValueError(message)
        return self

    def evaluate(self, content: Content) -> Observation:
        """Return whether the entry is as asked."""
        found = content.metadata.get(self.key)
        if self.exists is not None:
            return self.observed(matched=(found is not None) == self.exists)
        wanted = (self.equals,) if self.one_of is None else self.one_of
        return self.observed(matched=found is not None and found in wanted)
