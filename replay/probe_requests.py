"""From a probe's variant to the request that it stands for: repeated, padded, filled up to a size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents.errors import ConfigError
from agents.eval_content import EvalContent, eval_content

_PASSED_ON = ("tools", "functions", "tool_choice", "metadata", "max_tokens", "max_completion_tokens")
_FILLER = "x"
_MOST_BYTES = 64 << 20


def request_of(variant: Mapping[str, Any], fixtures: Mapping[str, Any], name: str) -> EvalContent:
    """Return the request of *variant*; raises `ConfigError` naming it if there is none."""
    try:
        messages = _messages(variant)
        messages = [_with_fixtures(message, fixtures) for message in messages]
        messages = _generated(messages, variant.get("generated_text"))
        document = {"model": "auto", "messages": messages}
        document |= {key: variant[key] for key in _PASSED_ON if variant.get(key) is not None}
        # The probes' own client writes JSON like this: no escapes but those that JSON needs.
        return eval_content(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"probe {name!r} cannot be made a request: {type(error).__name__} {error}"
        ) from None


def _messages(variant: Mapping[str, Any]) -> list[dict[str, Any]]:
    if (variant.get("query") is None) == (variant.get("messages") is None):
        raise ConfigError("a variant has either query or messages")
    if variant.get("messages") is not None:
        return [dict(message) for message in variant["messages"]]
    text = " ".join([str(variant["query"])] * int(variant.get("repeat") or 1))
    return [{"role": "user", "content": _padded(text, variant.get("padding"))}]


def _padded(text: str, padding: Mapping[str, Any] | None) -> str:
    """Return *text* with *padding* before, after or, half and half, around it."""
    if not padding:
        return text
    filler, times = str(padding["text"]), int(padding.get("repeat") or 1)
    if len(filler) * times > _MOST_BYTES:
        raise ConfigError(f"a padding of more than {_MOST_BYTES} bytes")
    placement = padding.get("placement") or "after"
    before = times if placement == "before" else times // 2 if placement == "around" else 0
    head, tail = [filler] * before, [filler] * (times - before)
    return " ".join([*head, text, *tail])


def _with_fixtures(message: dict[str, Any], fixtures: Mapping[str, Any]) -> dict[str, Any]:
    """Return *message* with every image that it names inlined."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_inlined(part, fixtures) for part in content]}


def _inlined(part: Any, fixtures: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a probe's JSON
    if not isinstance(part, dict) or part.get("type") != "image_fixture":
        return part
    image = (fixtures.get("images") or {}).get(part.get("fixture"))
    if not isinstance(image, dict):
        raise ConfigError(f"there is no image fixture {part.get('fixture')!r}")
    data = "".join(str(image["data_base64"]).split())
    return {"type": "image_url", "image_url": {"url": f"data:{image['media_type']};base64,{data}"}}


def _generated(messages: list[dict[str, Any]], asked: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return *messages* with a part of text that fills one of them up to a size in bytes."""
    if not asked:
        return messages
    index, place = int(asked.get("message_index") or 0), int(asked.get("content_index") or 0)
    target = int(asked["target_text_bytes"])
    if target > _MOST_BYTES:
        raise ConfigError(f"a generated text of more than {_MOST_BYTES} bytes")
    content = messages[index]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    there = sum(len(p["text"].encode()) for p in parts if p.get("type") == "text")
    unit = str(asked.get("text") or asked.get("character") or _FILLER)
    size = max(target - there, 0)
    raw = (unit.encode() * (size // len(unit.encode()) + 1))[:size]
    parts.insert(place, {"type": "text", "text": raw.decode("utf-8", "ignore")})
    return [*messages[:index], {**messages[index], "content": parts}, *messages[index + 1 :]]
