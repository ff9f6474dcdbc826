"""OpenAI: batch input and output files, stored chat completions, and pairs of request and response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from agents.errors import InvalidRecord
from replay.importers import (
    FAILED,
    Answered,
    Asked,
    Entry,
    Importer,
    Json,
    LeftOut,
    count_of,
    importer,
    mapping_of,
    messages_of,
    tags_of,
    text_of,
    time_of,
)

_CHAT = "/v1/chat/completions"
_BATCH_SHARE = 0.5
"""OpenAI bills the tokens of a batch at half the price of the same call."""
_OK = 200
_ANSWER = frozenset({"choices", "usage", "object", "created", "system_fingerprint", "service_tier", "id"})
_LITELLM = frozenset({"call_type", "model_group", "response_cost", "spend", "standard_logging_object"})


@importer
class OpenAI(Importer):
    """Reads files of the Batch API, both halves, and chat completions with their requests."""

    type: Literal["openai"] = "openai"
    fields: ClassVar[Mapping[str, str]] = {
        "custom_id": "joins a batch's input line and output line",
        "url": "/v1/chat/completions is read; other endpoints are left out",
        "body": "the request (batch input)",
        "response": "the answer: `status_code` and `body` (batch output), the completion, or its chunks",
        "error": "if it is there, the call failed (batch output)",
        "request": "the request of a pair with `response`",
        "id": "names the completion",
        "object": "chat.completion: a stored completion",
        "messages": "the prompt, of a request or beside a stored completion: a list, or a list's `data`",
        "model": "the model that was asked for, in a request; that answered, in an answer",
        "created": "when the answer was made: seconds since 1970",
        "metadata": "the request's metadata; entries that are text",
        "tools": "the request's tools",
        "usage.prompt_tokens": "tokens read",
        "usage.completion_tokens": "tokens written",
    }

    def recognises(self, line: Json) -> bool:
        """Tell whether *line* is half a batch's, a pair, a stored completion, or a request alone."""
        if _LITELLM & line.keys():
            return False
        batch = "custom_id" in line and ("body" in line or "response" in line or "error" in line)
        return batch or ("request" in line and "response" in line) or "messages" in line

    def read(self, line: Json) -> Entry:
        """Return what *line* tells: of a batch one half, else the whole call, or a request alone."""
        if "custom_id" in line and "body" in line:
            return self._input(line)
        if "custom_id" in line:
            return Entry(_custom_id(line), None, _output(line))
        if "request" in line:
            asked = _asked(mapping_of(line["request"]))
            return Entry(text_of(line.get("id")), asked, _paired(line["response"], asked.model))
        return _stored(line)

    def _input(self, line: Json) -> Entry:
        url = line.get("url", _CHAT)
        if url != _CHAT:
            raise LeftOut("a batch line for another endpoint is no chat completion")
        return Entry(_custom_id(line), _asked(mapping_of(line["body"])), None)


def _custom_id(line: Json) -> str:
    found = line.get("custom_id")
    if not isinstance(found, str) or not found:
        raise InvalidRecord("custom_id is no text")
    return found


def _asked(body: Json) -> Asked:
    request: dict[str, Any] = {**body, "messages": messages_of(body.get("messages"))}
    tags = tags_of(request.pop("metadata", None))
    if tags:
        request["metadata"] = tags
    return Asked(request, text_of(body.get("model")))


def _paired(response: object, asked: str) -> Answered | None:
    """Return what came of a pair's call: its response, or the chunks of one; None where none was logged."""
    if response is None:
        return None
    if isinstance(response, list):
        response = _joined([chunk for chunk in response if isinstance(chunk, Mapping)])
    return _answered(mapping_of(response), asked, 1.0)


def _joined(chunks: list[Json]) -> Json:
    """Return a stream's chunks as one answer: what any of them says; only the last one has the usage."""
    joined: dict[str, Any] = {}
    for chunk in chunks:
        joined |= {name: value for name, value in chunk.items() if value is not None}
    return joined


def _output(line: Json) -> Answered:
    response = mapping_of(line.get("response"))
    if line.get("error") or not response:
        return Answered("", FAILED)
    return _answered(response, "", _BATCH_SHARE)


def _answered(response: Json, asked: str, share: float) -> Answered:
    """Return what came of a call; *response* may have status and body, or be the chat completion itself."""
    status = response.get("status_code", _OK)
    answer = mapping_of(response["body"]) if "body" in response else response
    model = text_of(answer.get("model")) or asked
    if status != _OK or not answer or answer.get("error"):
        return Answered(model, FAILED)
    usage = mapping_of(answer.get("usage"))
    prompt, completion = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    at = time_of(answer.get("created"))
    return Answered(model, prompt_tokens=prompt, completion_tokens=completion, share=share, at=at)


def _stored(line: Json) -> Entry:
    """Return a stored completion, whose messages stand beside it, or a request alone."""
    key = text_of(line.get("id"))
    if line.get("object") == "chat.completion" or "choices" in line or "usage" in line:
        request = {name: value for name, value in line.items() if name not in _ANSWER}
        asked = _asked(request)
        return Entry(key, asked, _answered(line, asked.model, 1.0))
    return Entry(key, _asked(line), None)
