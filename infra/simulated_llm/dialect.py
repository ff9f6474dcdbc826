"""Outcomes in the OpenAI wire format: answers, streams of events, errors and lists of models. Pure."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import orjson

from infra.simulated_llm.model import OK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from infra.simulated_llm.profile import Profile
    from infra.simulated_llm.simulator import Exchange

FINGERPRINT = "signalbox-simulated"
_EVENTS_PER_ANSWER = 64


def headers(exchange: Exchange) -> dict[str, str]:
    """Return the headers of the answer, names in lower case."""
    outcome = exchange.outcome
    sent = {
        "content-type": "application/json",
        "x-simulated": "true",
        "x-request-id": exchange.request_id or f"req-sim-{outcome.fingerprint}",
    }
    if outcome.retry_after_s is not None:
        sent["retry-after"] = str(ceil(outcome.retry_after_s))
        sent["retry-after-ms"] = str(ceil(outcome.retry_after_s * 1000))
    return sent


def body(exchange: Exchange) -> bytes:
    """Return the whole answer or error as JSON."""
    outcome = exchange.outcome
    if outcome.status != OK:
        return error(outcome.status, outcome.code, outcome.message)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": outcome.text, "refusal": None},
        "logprobs": None,
        "finish_reason": outcome.finish_reason,
    }
    return orjson.dumps(
        {**_head(exchange, "chat.completion"), "choices": [choice], "usage": _usage(exchange)}
    )


def error(status: int, code: str, message: str) -> bytes:
    """Return an error object."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status)
    if kind is None:
        kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 - HTTP class
    return orjson.dumps(
        {"error": {"message": f"[simulated] {message}", "type": kind, "param": None, "code": code}}
    )


def events(exchange: Exchange) -> Iterator[tuple[float, bytes]]:
    """Yield (seconds to wait before it, server-sent event) of a streamed answer.

    An answer is told in at most 64 pieces, so that long ones do not cost more than they show.
    """
    outcome = exchange.outcome
    words = outcome.text.split(" ")
    size = ceil(len(words) / _EVENTS_PER_ANSWER)
    pieces = [" ".join(words[i : i + size]) for i in range(0, len(words), size)]
    pause_s = (outcome.latency_s - outcome.ttft_s) / len(pieces)
    yield outcome.ttft_s, _event(exchange, {"role": "assistant", "content": ""})
    for i, piece in enumerate(pieces):
        yield pause_s, _event(exchange, {"content": piece if i == 0 else f" {piece}"})
    yield 0.0, _event(exchange, {}, outcome.finish_reason)
    if exchange.include_usage:
        chunk = {**_head(exchange, "chat.completion.chunk"), "choices": [], "usage": _usage(exchange)}
        yield 0.0, b"data: %b\n\n" % orjson.dumps(chunk)
    yield 0.0, b"data: [DONE]\n\n"


def models(profile: Profile, provider: str) -> bytes:
    """Return the list of models of *provider*, or of all providers if it is empty."""
    listed = [
        {"id": model, "object": "model", "created": 0, "owned_by": name, "simulated": True, "price": price}
        for name, known in profile.providers.items()
        if provider in {"", name}
        for model, price in ((model, at.price.model_dump()) for model, at in known.models.items())
    ]
    return orjson.dumps({"object": "list", "data": listed})


def _head(exchange: Exchange, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-sim-{exchange.outcome.fingerprint}",
        "object": kind,
        "created": int(exchange.created),
        "model": exchange.model,
        "system_fingerprint": FINGERPRINT,
    }


def _usage(exchange: Exchange) -> dict[str, int]:
    prompt, completion = exchange.prompt_tokens, exchange.outcome.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _event(exchange: Exchange, delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk: dict[str, Any] = {**_head(exchange, "chat.completion.chunk"), "choices": [choice]}
    if exchange.include_usage:
        chunk["usage"] = None
    return b"data: %b\n\n" % orjson.dumps(chunk)
