"""The OpenAI dialect: what is changed in a call, and what each kind of reply means."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import InvalidRecord
from agents.ports import HttpCall, HttpReply
from agents.providers import Reply
from agents.providers.openai import OpenAI

DIALECT = OpenAI()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def write(body: bytes, model: str = "gpt-x") -> HttpCall:
    """Write a call with the usual identity."""
    return DIALECT.write(body, model, idempotency_key="job-1", request_id="request-1", timeout_s=30.0)


def read(status: int, body: Any, **headers: str) -> Reply:
    """Read a reply; header names are given with underscores."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return DIALECT.read(
        HttpReply(status, {n.replace("_", "-"): v for n, v in headers.items()}, raw, 0.1, math.nan)
    )


def error(code: object = None, message: str = "", kind: str = "invalid_request_error") -> dict[str, Any]:
    """Return an error object as OpenAI sends it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


ANSWER: dict[str, Any] = {
    "model": "gpt-x-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
}


def test_a_call_names_the_model_and_carries_its_identity() -> None:
    """The path, the timeout, the idempotency key and the request id are those that were given."""
    call = write(b'{"model": "auto", "messages": []}')

    assert json.loads(call.body) == {"model": "gpt-x", "messages": []}
    assert (call.path, call.timeout_s) == ("/chat/completions", 30.0)
    assert call.headers["idempotency-key"] == "job-1"
    assert call.headers["x-request-id"] == "request-1"


@given(
    st.dictionaries(st.text().filter(lambda name: name not in {"model", "stream", "stream_options"}), JSON)
)
def test_nothing_but_the_model_is_changed(body: dict[str, Any]) -> None:
    """Whatever else a caller sent, known to us or not, reaches the provider."""
    assert json.loads(write(json.dumps(body).encode()).body) == {**body, "model": "gpt-x"}


def test_a_call_is_answered_whole_even_if_its_caller_wanted_a_stream() -> None:
    """Streaming is turned off, with the option that providers refuse without it."""
    call = write(b'{"model": "auto", "stream": true, "stream_options": {"include_usage": true}}')

    assert json.loads(call.body) == {"model": "gpt-x", "stream": False}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"secret"', b"\xff"])
def test_a_body_that_is_no_object_is_an_invalid_record_that_quotes_nothing(body: bytes) -> None:
    """The error tells the size, not the content, and hides the parser's own error."""
    with pytest.raises(InvalidRecord, match=rf"\({len(body)} bytes\) is not a JSON object") as caught:
        write(body)

    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "secret" not in str(caught.value)


def test_an_answer_is_read_with_its_usage_and_the_model_that_ran() -> None:
    """Finish reason, tokens and executed model come from the answer."""
    reply = read(200, ANSWER)

    assert (reply.outcome, reply.error_code, reply.finish_reason) == ("ok", "", "stop")
    assert (reply.model, reply.prompt_tokens, reply.completion_tokens) == ("gpt-x-2026", 12, 3)
    assert math.isnan(reply.retry_after_s)


def test_an_answer_without_usage_is_an_answer() -> None:
    """Absent token counts are 0."""
    reply = read(200, {"choices": ANSWER["choices"]})

    assert (reply.outcome, reply.prompt_tokens, reply.completion_tokens) == ("ok", 0, 0)


def test_an_answer_that_the_provider_filtered_may_be_had_elsewhere() -> None:
    """The filtered answer's usage is kept, since it is billed."""
    choice = {"message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"}
    reply = read(200, {**ANSWER, "choices": [choice]})

    assert (reply.outcome, reply.error_code, reply.prompt_tokens) == ("degrade", "content_filter", 12)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", {}, {"choices": []}, {"choices": [None]}])
def test_a_success_without_an_answer_was_lost_on_the_way(body: Any) -> None:
    """A 200 that holds no choice is asked for again."""
    assert (read(200, body).outcome, read(200, body).error_code) == ("retry", "invalid_answer")


@pytest.mark.parametrize(
    ("status", "body", "outcome", "code"),
    [
        (408, b"", "retry", "timeout"),
        (409, b"", "retry", "conflict"),
        (429, error("rate_limit_exceeded"), "retry", "rate_limited"),
        (500, error("server_error"), "retry", "provider_error"),
        (503, b"<html>unavailable</html>", "retry", "provider_error"),
        (529, b"", "retry", "provider_error"),
        (500, error("context_length_exceeded"), "retry", "provider_error"),
        (400, error("context_length_exceeded"), "degrade", "context_length"),
        (
            400,
            error(400, "This model's maximum context length is 8192 tokens."),
            "degrade",
            "context_length",
        ),
        (
            400,
            {"object": "error", "message": "maximum model length of 512", "code": 400},
            "degrade",
            "context_length",
        ),
        (413, b"", "degrade", "context_length"),
        (400, error("content_filter"), "degrade", "content_filter"),
        (400, {"error": {"innererror": {"code": "content_filter"}}}, "degrade", "content_filter"),
        (403, error(None, "blocked by our content policy"), "degrade", "content_filter"),
        (404, error("model_not_found"), "degrade", "model_retired"),
        (404, error("DeploymentNotFound"), "degrade", "model_retired"),
        (404, {"error": "model 'x' not found"}, "degrade", "model_retired"),
        (
            404,
            {"object": "error", "message": "The model `x` does not exist.", "code": 404},
            "degrade",
            "model_retired",
        ),
        (410, b"", "degrade", "model_retired"),
        (429, error("insufficient_quota"), "degrade", "quota_exhausted"),
        (402, b"", "degrade", "quota_exhausted"),
        (400, error("invalid_value", "Invalid 'temperature'."), "reject", "bad_request"),
        (422, b"", "reject", "bad_request"),
        (401, error("invalid_api_key"), "reject", "unauthorized"),
        (403, b"", "reject", "forbidden"),
        (404, b"<html>", "reject", "not_found"),
        (302, b"", "reject", "unexpected_status"),
        (200, error(429), "retry", "rate_limited"),
        (200, error(None, "upstream broke"), "retry", "provider_error"),
    ],
)
def test_a_refusal_says_whether_to_ask_again_here_elsewhere_or_never(
    status: int, body: Any, outcome: str, code: str
) -> None:
    """Status first, then the code, then the words in which servers without codes say the same."""
    reply = read(status, body)

    assert (reply.outcome, reply.error_code) == (outcome, code)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "1", "retry_after_ms": "250"}, 0.25),
        ({"retry_after": "-3"}, 0.0),
        (
            {"retry_after": "Sun, 22 Nov 2026 04:00:30 GMT", "date": "Sun, 22 Nov 2026 04:00:00 GMT"},
            30.0,
        ),
        ({"retry_after": "Sun, 22 Nov 2026 04:00:00 GMT", "date": "Sun, 22 Nov 2026 04:00:30 GMT"}, 0.0),
    ],
)
def test_the_wait_that_a_provider_asks_for_is_read(headers: dict[str, str], seconds: float) -> None:
    """Milliseconds win over seconds; a date counts from the reply's own date."""
    assert read(429, b"", **headers).retry_after_s == seconds


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "Sun, 22 Nov 2026 04:00:30 GMT", "Sun, 99 Nov"])
def test_a_wait_that_cannot_be_understood_is_absent(text: str) -> None:
    """Without a usable number or a date to count from there is no wait."""
    assert math.isnan(read(429, b"", retry_after=text).retry_after_s)


@given(
    st.integers(100, 599),
    st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
    st.text(),
)
def test_no_reply_breaks_the_reader(status: int, body: bytes, retry_after: str) -> None:
    """Whatever a provider sends has a meaning; only a success can be ok."""
    reply = read(status, body, retry_after=retry_after)

    assert reply.outcome != "ok" or 200 <= status < 300
    assert (reply.error_code == "") == (reply.outcome == "ok")


@given(st.sampled_from([400, 401, 404, 429, 500]), JSON, JSON, JSON)
def test_no_error_object_breaks_the_reader(status: int, code: object, message: object, kind: object) -> None:
    """Error objects with fields of any type are read, and their words never come through."""
    reply = read(status, {"error": {"code": code, "message": message, "type": kind}})

    assert reply.error_code.replace("_", "").isalpha()
