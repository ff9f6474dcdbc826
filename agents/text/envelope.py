"""How many tokens a chat-completions body takes at least, from its bytes alone.

floor = ceil(T / 4) + S + 8192 * images + F + R, where T is bytes of text, S bytes of JSON as it was
sent (one token each), F framing per message, call, tool result and tool definition, and R the tokens
reserved for the answer (VSR.md finding 31).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.text.raw_json import Path, RawDocument

_PER_MESSAGE = 4
_PER_CALL = 8
_PER_IMAGE = 8192
_BYTES_PER_TOKEN = 4
_MAX = 2**63 - 1
_IMAGES = frozenset({"image", "image_url", "input_image"})
_TEXTS = frozenset({"text", "input_text", "output_text"})
_STRUCTURED = ("tool_choice", "function_call", "response_format")


def token_floor(document: Mapping[str, Any], body: bytes) -> int:
    """Return the floor of *document*, which was parsed from *body*."""
    tally = _Tally(RawDocument(body))
    messages = document.get("messages")
    if isinstance(messages, list):
        for index, message in enumerate(messages):
            tally.message(message, ("messages", index))
    else:
        tally.structured(messages, ("messages",))
    for key in ("tools", "functions"):
        tally.definitions(document.get(key), (key,))
    for key in _STRUCTURED:
        tally.structured(document.get(key), (key,))
    tally.reserve(document)
    return min(-(-tally.text_bytes // _BYTES_PER_TOKEN) + tally.tokens, _MAX)


def utf8_size(text: str) -> int:
    """Return the length of *text* in UTF-8 bytes; a lone surrogate counts as the three of U+FFFD."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class _Tally:
    """What was counted so far: bytes of text apart, all else in tokens."""

    raw: RawDocument
    text_bytes: int = 0
    tokens: int = field(default=0)

    def message(self, message: Any, path: Path) -> None:  # noqa: ANN401 - a caller's JSON
        self.tokens += _PER_MESSAGE
        if not isinstance(message, dict):
            self.structured(message, path)
            return
        for key in ("role", "name", "tool_call_id"):
            self.text(message.get(key), (*path, key))
        role = message.get("role")
        content = message.get("content")
        if isinstance(role, str) and role.strip().lower() in {"tool", "function"}:
            self._tool_result(content, (*path, "content"))
        else:
            self._content(content, (*path, "content"))
        self.text(message.get("refusal"), (*path, "refusal"))
        self.text(message.get("reasoning_content"), (*path, "reasoning_content"))
        if message.get("tool_calls") is not None:
            self._calls(message["tool_calls"], (*path, "tool_calls"))
        if message.get("function_call") is not None:
            self._function_call(message["function_call"], (*path, "function_call"))

    def text(self, value: Any, path: Path) -> None:  # noqa: ANN401 - as above
        if isinstance(value, str):
            self.text_bytes += utf8_size(value)
        else:
            self.structured(value, path)

    def structured(self, value: Any, path: Path) -> None:  # noqa: ANN401 - as above
        if value is not None:
            self.tokens += self.raw.size(path)

    def definitions(self, value: Any, path: Path) -> None:  # noqa: ANN401 - as above
        if not isinstance(value, list):
            self.structured(value, path)
            return
        for index, definition in enumerate(value):
            self.tokens += _PER_CALL
            self.structured(definition, (*path, index))

    def reserve(self, document: Mapping[str, Any]) -> None:
        for key in ("max_completion_tokens", "max_tokens"):
            value = document.get(key)
            if value is None:
                continue
            whole = self.raw.text((key,)) if isinstance(value, float) else b""
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                self.tokens += min(value, _MAX)
            elif whole.isdigit():
                self.tokens += _MAX
            else:
                self.structured(value, (key,))
            return

    def _content(self, content: Any, path: Path) -> None:  # noqa: ANN401 - as above
        if isinstance(content, str):
            self.text_bytes += utf8_size(content)
        elif isinstance(content, list):
            for index, part in enumerate(content):
                self._part(part, (*path, index))
        elif isinstance(content, dict):
            self._part(content, path)
        else:
            self.structured(content, path)

    def _part(self, part: Any, path: Path) -> None:  # noqa: ANN401 - as above
        kind = _kind(part)
        if kind in _IMAGES:
            self.tokens += _PER_IMAGE
        elif kind in _TEXTS and "text" in part:
            self.text(part["text"], (*path, "text"))
        else:
            self.structured(part, path)

    def _tool_result(self, content: Any, path: Path) -> None:  # noqa: ANN401 - as above
        self.tokens += _PER_CALL
        parts = enumerate(content) if isinstance(content, list) else ((None, content),)
        for index, part in parts:
            if _kind(part) in _IMAGES:
                self.tokens += _PER_IMAGE
            else:
                self.structured(part, path if index is None else (*path, index))

    def _calls(self, calls: Any, path: Path) -> None:  # noqa: ANN401 - as above
        if not isinstance(calls, list):
            self.structured(calls, path)
            return
        for index, call in enumerate(calls):
            self.tokens += _PER_CALL
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                self.structured(call, (*path, index))
                continue
            for key in ("id", "type", "tool_call_id"):
                self.text(call.get(key), (*path, index, key))
            self.text(function.get("name"), (*path, index, "function", "name"))
            self.structured(function.get("arguments"), (*path, index, "function", "arguments"))

    def _function_call(self, function: Any, path: Path) -> None:  # noqa: ANN401 - as above
        if not isinstance(function, dict):
            self.structured(function, path)
            return
        self.tokens += _PER_CALL
        self.text(function.get("name"), (*path, "name"))
        self.structured(function.get("arguments"), (*path, "arguments"))


def _kind(part: Any) -> str:  # noqa: ANN401 - as above
    kind = part.get("type") if isinstance(part, dict) else None
    return kind.strip().lower() if isinstance(kind, str) else ""
