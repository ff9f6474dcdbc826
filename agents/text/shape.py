"""The shape of a conversation: turns by role, tool traffic, images, and what each side said.

Roles are compared as they are written: "User" is nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

_FLOW = "flowtool_"
"""How the ids of calls begin whose results resume a managed workflow."""


@dataclass(slots=True)
class Shape:
    """What was counted in one request."""

    user: int = 0
    assistant: int = 0
    system: int = 0
    tool: int = 0
    developer: int = 0
    tool_definitions: int = 0
    tool_calls: int = 0
    images: int = 0
    last_role: str = ""
    last_is_tool_result: bool = False
    last_is_user_after_tool: bool = False
    tool_choice_required: bool = False
    tool_choice_none: bool = False
    last_is_flow_result: bool = False
    user_text: str = ""
    other_texts: list[str] = field(default_factory=list)

    @property
    def messages(self) -> int:
        """Return how many messages have a known role; developers count once."""
        return self.user + self.non_user

    @property
    def non_user(self) -> int:
        """Return how many of them are not the user's."""
        return self.assistant + self.system + self.tool + self.developer

    @property
    def active_tool_loop(self) -> bool:
        """Tell whether a tool result is still to be answered, or a call to be run."""
        return self.last_is_tool_result or self.last_is_user_after_tool or self.tool_calls > self.tool


def shape_of(document: Mapping[str, Any]) -> Shape:
    """Return the shape of a chat-completions body."""
    shape = Shape()
    for key in ("tools", "functions"):
        definitions = document.get(key)
        shape.tool_definitions += len(definitions) if isinstance(definitions, list) else 0
    choice = document.get("tool_choice")
    shape.tool_choice_required = choice == "required" or isinstance(choice, dict)
    shape.tool_choice_none = choice == "none"
    messages = document.get("messages")
    for message in messages if isinstance(messages, list) else ():
        _count(shape, message if isinstance(message, dict) else {})
    return shape


def text_of(content: Any) -> str:  # noqa: ANN401 - a caller's JSON
    """Return the text of a message's content: its text parts, and those of no type, joined by blanks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (_string(p.get("text")) for p in _objects(content) if _string(p.get("type")) in {"", "text"})
    return " ".join(text for text in texts if text)


def _count(shape: Shape, message: Mapping[str, Any]) -> None:
    after_tool = shape.last_is_tool_result
    role = _string(message.get("role"))
    content = message.get("content")
    shape.last_role, shape.last_is_tool_result, shape.last_is_user_after_tool = role, False, False
    shape.last_is_flow_result = False
    if role == "user":
        shape.user += 1
        shape.last_is_user_after_tool = after_tool
        shape.images += _images(content)
        shape.user_text = text_of(content) or shape.user_text
    elif role == "tool":
        shape.tool += 1
        shape.last_is_tool_result = True
        shape.last_is_flow_result = _string(message.get("tool_call_id")).startswith(_FLOW)
    elif role in {"system", "assistant", "developer"}:
        _count_other(shape, role, message)


def _count_other(shape: Shape, role: str, message: Mapping[str, Any]) -> None:
    if role == "system":
        shape.system += 1
    elif role == "developer":
        shape.developer = 1
    else:
        shape.assistant += 1
        calls = message.get("tool_calls")
        shape.tool_calls += len(calls) if isinstance(calls, list) else 0
    text = text_of(message.get("content"))
    if text:
        shape.other_texts.append(text)


def _images(content: Any) -> int:  # noqa: ANN401 - a caller's JSON
    if not isinstance(content, list):
        return 0
    return sum(1 for part in _objects(content) if part.get("type") in {"image_url", "input_image"})


def _objects(content: list[Any]) -> list[Mapping[str, Any]]:
    return [part for part in content if isinstance(part, dict)]


def _string(value: Any) -> str:  # noqa: ANN401 - a caller's JSON
    """Return *value* as the original reads a field that should be text: numbers and objects as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()
