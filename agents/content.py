"""What signals may look at: one parsed view of a request's body, made once per role.

The body is the caller's chat-completions JSON; nothing here keeps or reports its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from agents.errors import InvalidRecord
from schemas.sealed import Body, unseal

_ENVELOPE_PER_MESSAGE = 4
_ENVELOPE_PER_CALL = 8
_TOKENS_PER_IMAGE = 8192


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object in *body*; raises `InvalidRecord` without quoting it."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        message = "the body is not valid JSON"
        raise InvalidRecord(message) from None
    if not isinstance(document, dict):
        message = "the body is not a JSON object"
        raise InvalidRecord(message)
    return document


def at_hand(body: Body) -> bytes:
    """Return the plain bytes of an inline *body*; raises `InvalidRecord` if they are kept elsewhere.

    Raises ValueError if they are sealed with a key that is not held here.
    """
    if body.sealed is None:
        message = "the body is kept elsewhere and was not fetched"
        raise InvalidRecord(message)
    return unseal(body.sealed)


@dataclass(frozen=True)
class Content:
    """A request's body as signals see it."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The parsed body."""
        return parse(self.body)

    @cached_property
    def messages(self) -> tuple[Mapping[str, Any], ...]:
        """The chat messages that are objects, in order."""
        messages = self.document.get("messages")
        return tuple(m for m in messages if isinstance(m, dict)) if isinstance(messages, list) else ()

    @cached_property
    def text(self) -> str:
        """The last user turn; where there is none, all other text joined by newlines."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return "\n".join(_texts(message))
        return "\n".join(text for message in self.messages for text in _texts(message))

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The request's metadata map; entries that are no strings are left out."""
        metadata = self.document.get("metadata")
        if not isinstance(metadata, dict):
            return {}
        return {k: v for k, v in metadata.items() if isinstance(v, str)}

    @cached_property
    def token_floor(self) -> int:
        """A lower estimate of the tokens of the whole envelope: text bytes / 4, JSON bytes, images."""
        text = sum(len(t.encode("utf-8", "surrogatepass")) for m in self.messages for t in _counted(m))
        images = sum(_images(m) for m in self.messages)
        calls = [c for m in self.messages for c in m.get("tool_calls") or ()]
        structured = sum(
            len(orjson.dumps(self.document[key]))
            for key in ("tools", "functions", "tool_choice", "function_call", "response_format")
            if self.document.get(key) is not None
        )
        envelope = _ENVELOPE_PER_MESSAGE * len(self.messages) + _ENVELOPE_PER_CALL * len(calls)
        reserved = self.document.get("max_completion_tokens") or self.document.get("max_tokens") or 0
        reply = max(reserved, 0) if isinstance(reserved, int) else 0
        return -(-text // 4) + structured + _TOKENS_PER_IMAGE * images + envelope + reply


def _parts(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    content = message.get("content")
    if isinstance(content, list):
        yield from (part for part in content if isinstance(part, dict))


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in _parts(message):
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            yield part["text"]


def _counted(message: Mapping[str, Any]) -> Iterator[str]:
    yield from _texts(message)
    for key in ("role", "name", "tool_call_id"):
        if isinstance(message.get(key), str):
            yield message[key]


def _images(message: Mapping[str, Any]) -> int:
    return sum(1 for part in _parts(message) if part.get("type") in {"image_url", "input_image"})
