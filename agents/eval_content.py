"""A request as the original's Eval API reads it, by which probes are judged: not quite as it routes.

The body is written anew before bytes are counted (no white space; `<`, `>` and `&` as escapes of six
bytes), text is trimmed, roles are compared without case, and parts of type input_text are text
(VSR.md finding 33).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from agents.content import Content
from agents.text.raw_json import compact
from agents.text.shape import Shape, shape_of, text_of

_ESCAPED = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    b"\xe2\x80\xa8": b"\\u2028",
    b"\xe2\x80\xa9": b"\\u2029",
}


class EvalContent(Content):
    """Content whose text is trimmed and whose roles and parts are read without case."""

    @cached_property
    def shape(self) -> Shape:
        """Who said what, with every message as it is understood there; no message is one user turn."""
        shape = shape_of({**self.document, "messages": self._read})
        if not self._read:
            shape.user, shape.last_role = 1, "user"
        return shape

    @cached_property
    def _read(self) -> list[Any]:
        messages = self.document.get("messages")
        listed = messages if isinstance(messages, list) else []
        return [_message(message) if isinstance(message, dict) else message for message in listed]

    @cached_property
    def text(self) -> str:
        """The last user turn that is not blank, trimmed, else what system and assistant said."""
        turns = (m for m in reversed(self._read) if isinstance(m, dict) and m.get("role") == "user")
        said = (text_of(turn.get("content")).strip() for turn in turns)
        others = (text.strip() for text in self.shape.other_texts)
        return next(filter(None, said), "") or " ".join(filter(None, others))


def eval_content(body: bytes) -> EvalContent:
    """Return the request in *body* as the Eval API would look at it; no identity is evaluated there."""
    body = compact(body)
    for plain, escaped in _ESCAPED.items():
        body = body.replace(plain, escaped)
    return EvalContent(body)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    read = dict(message)
    if isinstance(read.get("role"), str):
        read["role"] = read["role"].strip().lower()
    content = read.get("content")
    if isinstance(content, dict):
        read["content"] = [_part(content)]
    elif isinstance(content, list):
        read["content"] = [_part(part) for part in content]
    return read


def _part(part: Any) -> Any:  # noqa: ANN401 - a caller's JSON
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        return part
    kind = kind.strip().lower()
    return {**part, "type": "text" if kind == "input_text" else kind}
