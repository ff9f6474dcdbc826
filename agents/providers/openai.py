"""The OpenAI dialect of chat completions, which vLLM, Azure and many others speak too.

Statuses are read first, codes next and words last, since the words differ between servers.
"""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Literal

import orjson

from agents.errors import InvalidRecord
from agents.failures import code_of_status, verb_of
from agents.ports import HttpCall, HttpReply
from agents.providers import ProviderConfig, Reply, provider

_NAN = float("nan")
_FIRST_ERROR = 400
_SERVER_ERROR = 500
_BAD_GATEWAY = 502

# What a provider says it could not do for this model or account, although another one might.
_BY_CODE = {
    "billing_hard_limit_reached": "quota_exhausted",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "context_length_exceeded": "context_length",
    "deploymentnotfound": "model_retired",
    "insufficient_quota": "quota_exhausted",
    "invalid_prompt": "content_filter",
    "model_deprecated": "model_retired",
    "model_not_found": "model_retired",
    "string_above_max_length": "context_length",
}
_TOO_LONG = re.compile(
    r"maximum (context|model) length|context (length|window|size)|prompt is too long", re.IGNORECASE
)
_FILTERED = re.compile(r"content (management|filter|policy)", re.IGNORECASE)
_NO_MODEL = re.compile(
    r"\bmodel\b.*(does not exist|not found|deprecated|no longer|decommissioned)", re.IGNORECASE | re.DOTALL
)
# vLLM and llama.cpp send these without a code of their own; only in a refusal do the words count.
_BY_WORDS: tuple[tuple[frozenset[int], re.Pattern[str], str], ...] = (
    (frozenset({400, 413, 422}), _TOO_LONG, "context_length"),
    (frozenset({400, 403}), _FILTERED, "content_filter"),
    (frozenset({400, 404}), _NO_MODEL, "model_retired"),
)


@provider
class OpenAI(ProviderConfig):
    """``POST chat/completions`` below the provider's base URL, answered whole."""

    type: Literal["openai"] = "openai"
    path: str = "/chat/completions"

    def write(
        self, body: bytes, model: str, *, idempotency_key: str, request_id: str, timeout_s: float
    ) -> HttpCall:
        """Return the call; of *body* only the model and, where asked for, streaming are changed.

        Raises:
            InvalidRecord: *body* is not a JSON object.
        """
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            asked = None
        if not isinstance(asked, dict):
            # Without the parser's error as its cause: that one carries the whole body.
            raise InvalidRecord(
                f"the body ({len(body)} bytes) is not a JSON object; send a chat completions request"
            )
        asked["model"] = model
        if asked.get("stream"):
            asked["stream"] = False
        # Providers refuse these options in a call that does not stream.
        asked.pop("stream_options", None)
        headers = {
            "content-type": "application/json",
            "idempotency-key": idempotency_key,
            "x-request-id": request_id,
        }
        return HttpCall(self.path, orjson.dumps(asked), headers, timeout_s)

    def read(self, reply: HttpReply) -> Reply:
        """Return what *reply* means."""
        answer = _object(reply.body)
        status, error = _error(reply.status, answer)
        if status >= _FIRST_ERROR:
            return _failed(_classify(status, error), _retry_after_s(reply))
        if not 200 <= status < 300:  # noqa: PLR2004 - HTTP's range of success
            return _failed("unexpected_status")
        return _answered(answer)


def _answered(answer: dict[str, Any]) -> Reply:
    """Read a success; an answer without a choice is one that was lost on the way."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        return _failed("invalid_answer")
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    finish_reason = _text(choice.get("finish_reason"))
    filtered = finish_reason == "content_filter"
    return Reply(
        outcome=verb_of("content_filter") if filtered else "ok",
        model=_text(answer.get("model")),
        finish_reason=finish_reason,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        error_code="content_filter" if filtered else "",
        retry_after_s=_NAN,
    )


def _failed(code: str, retry_after_s: float = _NAN) -> Reply:
    return Reply(verb_of(code), "", "", 0, 0, code, retry_after_s)


def _classify(status: int, error: dict[str, Any]) -> str:
    """Return the code of an error with *status*."""
    inner = error.get("innererror")
    places = (error, inner if isinstance(inner, dict) else {})
    for word in (_text(place.get(name)).lower() for place in places for name in ("code", "type")):
        if word in _BY_CODE and status < _SERVER_ERROR:
            return _BY_CODE[word]
    message = _text(error.get("message"))
    for statuses, words, code in _BY_WORDS:
        if status in statuses and words.search(message):
            return code
    return code_of_status(status)


def _error(status: int, answer: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the status that counts and the error object; both shapes of it are known.

    Aggregators answer 200 with an error inside; its code is then the status.
    """
    error = answer.get("error")
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return status, (answer if status >= _FIRST_ERROR else {})
    if status >= _FIRST_ERROR:
        return status, error
    code = error.get("code")
    return (code if isinstance(code, int) and _FIRST_ERROR <= code <= 599 else _BAD_GATEWAY), error  # noqa: PLR2004


def _object(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _retry_after_s(reply: HttpReply) -> float:
    """Return the seconds that the headers ask to wait, NaN where they do not.

    A date is measured against the reply's own ``Date``, so no clock is read.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _number(reply.headers.get(name, "")) / unit
        if isfinite(seconds):
            return max(seconds, 0.0)
    until, since = _date(reply.headers.get("retry-after", "")), _date(reply.headers.get("date", ""))
    if until is None or since is None:
        return _NAN
    return max((until - since).total_seconds(), 0.0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return _NAN


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
