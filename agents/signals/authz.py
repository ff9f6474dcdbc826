"""The roles that an identity is bound to, as the headers of an authenticating proxy state it.

Who nobody vouches for is refused at admission (`agents.refusal`), never here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from agents.complaints import Complaint
from agents.content import Content
from agents.parts import Part
from agents.signals import Heuristic, signal
from schemas.signal import Observation

_KINDS = ("user", "group")


class Subject(Part):
    """A user or a group; `kind` is compared without case, the name is trimmed and compared exactly."""

    kind: str = ""
    name: str = ""


@signal
class Authz(Heuristic):
    """Emit a role when any of *subjects* is the user or one of the user's groups.

    Rules refer to the role, not to the binding; a role that several bindings grant is emitted once.
    """

    collection: ClassVar[str] = "role_bindings"
    written_as: ClassVar[Mapping[str, str]] = {"bound_role": "role"}
    type: Literal["authz"] = "authz"
    description: str = ""
    # Files say `role`, which every signal has already: it is where the signal is computed.
    bound_role: str = ""
    subjects: tuple[Subject, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the document holds
        if not isinstance(value, dict) or "role" not in value:
            return value
        return {"bound_role": value["role"], **{k: v for k, v in value.items() if k != "role"}}

    @property
    def observed_name(self) -> str:
        """Return the role."""
        return self.bound_role

    def names(self) -> tuple[str, ...]:
        """Return the role, and the binding: a leaf that names the latter loads and never matches."""
        return (self.bound_role, self.name)

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over why the binding binds nobody."""
        if not self.bound_role:
            yield Complaint((), "the role that leaves refer to is missing", "start")
        if not self.subjects:
            yield Complaint((), "at least one subject is needed", "start")
        for index, subject in enumerate(self.subjects):
            if subject.kind.strip().lower() not in _KINDS:
                yield Complaint(("subjects", index, "kind"), "kind is User or Group", "start")
            if not subject.name.strip():
                yield Complaint(
                    ("subjects", index, "name"), "the name of the user or group is missing", "start"
                )

    @cached_property
    def _bound(self) -> frozenset[tuple[str, str]]:
        return frozenset((s.kind.strip().lower(), s.name.strip()) for s in self.subjects)

    @classmethod
    def group(cls, configs: Sequence[Self]) -> Callable[[Content], Sequence[Observation]]:
        """Return what observes each role once: those held in the order of the bindings, then the others."""
        roles = dict.fromkeys(config.bound_role for config in configs)
        first = {config.bound_role: config for config in reversed(configs)}

        def observe(content: Content) -> list[Observation]:
            held = dict.fromkeys(config.bound_role for config in configs if config.binds(content))
            ordered = (*held, *(role for role in roles if role not in held))
            return [first[role].observed(matched=role in held) for role in ordered]

        return observe

    def evaluate(self, content: Content) -> Observation:
        """Return whether the identity is bound to the role; no confidence is recorded."""
        return self.observed(matched=self.binds(content))

    def binds(self, content: Content) -> bool:
        """Tell whether a subject is the user of *content*, or a group of theirs."""
        held = {("user", content.user), *(("group", group) for group in content.groups)}
        return bool(content.user) and not self._bound.isdisjoint(held)
