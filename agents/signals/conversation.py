"""The shape of a conversation: who spoke how often, which tools are offered, called, still at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal

from agents.bounds import fault_of
from agents.complaints import Complaint, Oddity
from agents.content import Content
from agents.parts import Part
from agents.rules import Predicate
from agents.signals import Heuristic, signal
from agents.text.shape import Shape
from schemas.signal import Observation

_ROLES: Mapping[str, Callable[[Shape], int]] = {
    "": lambda shape: shape.messages,
    "user": lambda shape: shape.user,
    "assistant": lambda shape: shape.assistant,
    "system": lambda shape: shape.system,
    "developer": lambda shape: shape.developer,
    "tool": lambda shape: shape.tool,
    "non_user": lambda shape: shape.non_user,
}
_SOURCES: Mapping[str, Callable[[Shape], int]] = {
    "tool_definition": lambda shape: shape.tool_definitions,
    "assistant_tool_call": lambda shape: shape.tool_calls,
    "assistant_tool_cycle": lambda shape: shape.tool,
    "active_tool_loop": lambda shape: int(shape.active_tool_loop),
    "tool_choice_required": lambda shape: int(shape.tool_choice_required),
    "tool_choice_none": lambda shape: int(shape.tool_choice_none),
    "flow_tool_state": lambda shape: int(shape.last_is_flow_result),
    "image_content": lambda shape: shape.images,
}
# The package knows more sources than the original's loader accepts.
_BEYOND = frozenset({"tool_choice_required", "tool_choice_none", "flow_tool_state"})
_MESSAGE = "message"


class ConversationSource(Part):
    """What is counted; `role` is for messages, and without it every message of a known role counts."""

    type: str = ""
    role: str = ""


class ConversationFeature(Part):
    """Whether something exists, or how often."""

    type: str = ""
    source: ConversationSource = ConversationSource()


@signal
class Conversation(Heuristic):
    """Match when a count of the conversation satisfies *predicate*; a count without one always does.

    `exists` matches where there is at least one. Confidence is 1 or 0; the number is always published.
    """

    collection: ClassVar[str] = "conversation"
    type: Literal["conversation"] = "conversation"
    description: str = ""
    feature: ConversationFeature = ConversationFeature()
    predicate: Predicate | None = None

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over a feature, a source or a predicate that cannot be evaluated."""
        source = self.feature.source
        if self.feature.type not in {"exists", "count"}:
            yield Complaint(("feature", "type"), "feature.type is exists or count")
        if source.type != _MESSAGE and source.type not in _SOURCES:
            known = f"source.type is one of: {', '.join((_MESSAGE, *_SOURCES))}"
            yield Complaint(("feature", "source", "type"), known, portable=source.type in _BEYOND)
        if source.role and source.type != _MESSAGE:
            yield Complaint(("feature", "source", "role"), "only messages have a role")
        elif source.role not in _ROLES:
            known = ", ".join(filter(None, _ROLES))
            yield Complaint(
                ("feature", "source", "role"), f"role is one of: {known}; leave it out to count all"
            )
        if self.predicate is not None and self.feature.type == "exists":
            yield Complaint(("predicate",), "exists takes no predicate")
        if self.predicate is not None and (fault := fault_of(self.predicate)) is not None:
            yield Complaint(("predicate",), fault)

    def oddities(self) -> Iterator[Oddity]:
        """Iterate over a count that nothing is asked of."""
        if self.feature.type == "count" and self.predicate is None:
            message = "a count without a predicate always matches, also 0"
            fix = ((("predicate",), {"gte": 1}),)
            yield Oddity((), "count-without-predicate", message, "predicate: {gte: 1}", fix)

    def _count(self, content: Content) -> int:
        source = self.feature.source
        count = _ROLES[source.role] if source.type == _MESSAGE else _SOURCES[source.type]
        return count(content.shape)

    def evaluate(self, content: Content) -> Observation:
        """Return whether the count is as asked; the value is the count, or 1 or 0 for `exists`."""
        value = float(self._count(content))
        if self.feature.type == "exists":
            value = 1.0 if value > 0 else 0.0
            matched = value > 0
        else:
            matched = self.predicate is None or self.predicate.holds(value)
        return self.observed(matched=matched, confidence=1.0 if matched else 0.0, value=value)
