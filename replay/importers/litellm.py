"""LiteLLM: a StandardLoggingPayload a line, as its callbacks write it, or a row of LiteLLM_SpendLogs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from agents.errors import InvalidRecord
from replay.importers import (
    CACHED,
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
    number_of,
    tags_of,
    text_of,
    time_of,
)

_WRAPPED = "standard_logging_object"
_OWN = frozenset({"call_type", "model_group", "response_cost", "spend"})
_CHAT = frozenset({"completion", "acompletion", ""})
_REDACTED = "redacted-by-litellm"
_CUT = "litellm_truncated"
_SETTINGS = ("tools", "tool_choice", "functions", "response_format", "max_tokens", "temperature")


@importer
class LiteLLM(Importer):
    """Reads what the proxy's file, S3 or GCS callbacks keep, and what its database exports."""

    type: Literal["litellm"] = "litellm"
    fields: ClassVar[Mapping[str, str]] = {
        "standard_logging_object": "if it is there, the payload is in it",
        "id": "names the call (payload)",
        "request_id": "names the call (spend log)",
        "call_type": "completion and acompletion are read; other calls are left out",
        "messages": "the prompt: a list, its text, or an object that has it",
        "proxy_server_request": "the prompt where `messages` is empty (spend log)",
        "model": "the model that answered",
        "model_group": "the model that was asked for; else `model`",
        "model_parameters": "tools, tool_choice, functions, response_format, max_tokens, temperature",
        "prompt_tokens": "tokens read",
        "completion_tokens": "tokens written",
        "response_cost": "USD paid (payload); unknown if below 0",
        "spend": "USD paid (spend log)",
        "response_cost_failure_debug_info": "if it is there, the cost is unknown, though it says 0",
        "startTime": "when the call was made: seconds since 1970, or ISO text",
        "status": "failure: the call failed",
        "cache_hit": "true: answered from LiteLLM's cache",
        "metadata.requester_metadata": "the request's metadata; entries that are text",
        "metadata.user_api_key_user_id": "who asks; else `end_user`",
        "metadata.user_api_key_team_alias": "the group of who asks; else `metadata.user_api_key_team_id`",
        "metadata.user_api_key_team_id": "the group of who asks",
        "end_user": "who asks",
    }

    def recognises(self, line: Json) -> bool:
        """Tell whether *line* is a payload, holds one, or has the columns of a spend log."""
        return _WRAPPED in line or len(_OWN & line.keys()) > 1

    def read(self, line: Json) -> Entry:
        """Return the call of *line*."""
        if _WRAPPED in line:
            line = mapping_of(line[_WRAPPED])
        kind = text_of(line.get("call_type"))
        if kind not in _CHAT:
            raise LeftOut(f"call_type {_word(kind)} is no chat completion")
        metadata = mapping_of(line.get("metadata"))
        body, cut = _body(line, metadata)
        model = text_of(line.get("model"))
        if not model:
            raise InvalidRecord("the line has no model")
        asked = Asked(body, text_of(line.get("model_group")) or model, *_who(line, metadata), cut)
        key = text_of(line.get("id")) or text_of(line.get("request_id"))
        return Entry(key, asked, _answered(line, model))


def _word(text: str) -> str:
    """Return *text* if it is a plain word: it is told to whoever runs the command."""
    return text if text.replace("_", "").isalnum() and len(text) <= 40 else "of another kind"  # noqa: PLR2004


def _body(line: Json, metadata: Json) -> tuple[dict[str, Any], bool]:
    """Return the request's body as far as it was logged, and whether text is missing in it."""
    sent = mapping_of(line.get("proxy_server_request"))
    sent = mapping_of(sent.get("body")) or sent
    own = line.get("messages")
    empty = own in (None, "", "{}", "[]", {}, [])
    messages = messages_of(sent.get("messages") if empty and sent else own)
    texts = list(_texts(messages))
    if _REDACTED in texts:
        raise InvalidRecord("the prompt was redacted by LiteLLM (turn_off_message_logging)")
    parameters = {**sent, **mapping_of(line.get("model_parameters"))}
    body: dict[str, Any] = {name: parameters[name] for name in _SETTINGS if name in parameters}
    tags = tags_of(metadata.get("requester_metadata")) or tags_of(sent.get("metadata"))
    if tags:
        body["metadata"] = tags
    return {**body, "messages": messages}, any(_CUT in text for text in texts)


def _texts(messages: list[Json]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            yield text_of(part.get("text")) if isinstance(part, Mapping) else text_of(part)


def _who(line: Json, metadata: Json) -> tuple[str, str]:
    """Return the user and the group that asked."""
    user = text_of(metadata.get("user_api_key_user_id")) or text_of(line.get("end_user"))
    team = text_of(metadata.get("user_api_key_team_alias")) or text_of(metadata.get("user_api_key_team_id"))
    return user, team


def _answered(line: Json, model: str) -> Answered:
    prompt, completion = count_of(line.get("prompt_tokens")), count_of(line.get("completion_tokens"))
    if text_of(line.get("status")) == "failure":
        return Answered(model, FAILED, prompt, completion)
    if str(line.get("cache_hit")).lower() == "true":
        return Answered(model, CACHED, prompt, completion, 0.0)
    stated = line.get("response_cost")
    paid = number_of(line.get("spend") if stated is None else stated)
    if line.get("response_cost_failure_debug_info") or (paid is not None and paid < 0.0):
        paid = None
    at = time_of(line.get("startTime"))
    return Answered(model, prompt_tokens=prompt, completion_tokens=completion, paid_usd=paid, at=at)
