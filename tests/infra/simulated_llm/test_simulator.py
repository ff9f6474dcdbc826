"""A call understood: refusals, limits and orders, without a socket."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.simulated_llm import dialect
from infra.simulated_llm.profile import parse
from infra.simulated_llm.simulator import Exchange, Force, Simulator

PROFILE = parse("""
providers:
  p:
    models:
      m: {latency: {ttft_median_ms: 10, per_token_ms: 1}, context_tokens: 100}
      limited: {bucket: {rps: 1, burst: 2}, retry_after_s: 0.25}
      faulty: {faults: {error: 1.0}}
  q: {models: {only: {}}}
""")
SECRET = "the-caller's-own-words"


def ask(simulator: Simulator, model: str = "m", now: float = 0.0, **more: Any) -> Exchange:
    """Make a call with a distinct key, unless one is given."""
    headers: Mapping[str, str] = more.pop("headers", {"idempotency-key": "k"})
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}], **more}
    return simulator.begin("p", json.dumps(body).encode(), headers, now)


def test_an_answer_has_the_shape_of_the_dialect_and_echoes_nothing() -> None:
    """A whole answer carries model, usage and the mark of the simulator, and none of the prompt."""
    exchange = ask(Simulator(PROFILE, 0), max_completion_tokens=7)
    raw = dialect.body(exchange)
    answer = json.loads(raw)

    assert answer["object"] == "chat.completion"
    assert answer["model"] == "m"
    assert answer["system_fingerprint"] == "signalbox-simulated"
    assert answer["choices"][0]["message"]["content"].startswith("[simulated p/m ")
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 7
    assert SECRET.encode() not in raw
    assert dialect.headers(exchange)["x-simulated"] == "true"


def test_a_repetition_of_a_key_is_another_draw_and_a_restart_repeats_both() -> None:
    """The n-th call with a key is counted; a new simulator with the same seed answers alike."""
    first, second = Simulator(PROFILE, 5), Simulator(PROFILE, 5)
    once = [ask(first).outcome for _ in range(2)]
    again = [ask(second).outcome for _ in range(2)]

    assert once[0] != once[1]
    assert once == again


def test_without_a_key_the_body_is_the_key() -> None:
    """Two different bodies without a key are different calls."""
    simulator = Simulator(PROFILE, 0)
    one, other = ask(simulator, headers={}), ask(simulator, headers={}, temperature=1)

    assert one.outcome.fingerprint != other.outcome.fingerprint
    assert one.idempotency_key == ""


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'{"messages": [1]}', 400, "invalid_request_error"),
        (b'{"model": "m"}', 400, "invalid_request_error"),
        (b'{"model": "m", "messages": []}', 400, "invalid_request_error"),
        (b'{"model": "zzz", "messages": [1]}', 404, "model_not_found"),
        (b'{"model": "m", "messages": ["' + b"x" * 400 + b'"]}', 400, "context_length_exceeded"),
    ],
)
def test_a_call_that_cannot_be_served_is_refused_as_a_vendor_would(
    body: bytes, status: int, code: str
) -> None:
    """Each refusal has its status and its code in the error format."""
    exchange = Simulator(PROFILE, 0).begin("p", body, {}, 0.0)
    error = json.loads(dialect.body(exchange))["error"]

    assert (exchange.outcome.status, error["code"]) == (status, code)
    assert error["message"].startswith("[simulated] ")


@given(st.binary(max_size=40), st.text(max_size=8), st.text(max_size=8))
def test_no_bytes_break_the_simulator(body: bytes, provider: str, key: str) -> None:
    """Whatever is sent, there is an outcome and a body."""
    exchange = Simulator(PROFILE, 0).begin(provider, body, {"idempotency-key": key}, 0.0)

    assert json.loads(dialect.body(exchange))


def test_without_a_provider_the_first_that_serves_the_model_answers() -> None:
    """A base URL without a provider reaches every model by name."""
    exchange = Simulator(PROFILE, 0).begin("", b'{"model": "only", "messages": [1]}', {}, 0.0)

    assert (exchange.provider, exchange.outcome.status) == ("q", 200)


def test_a_full_bucket_asks_to_wait() -> None:
    """After the burst a 429 carries Retry-After in whole seconds and in milliseconds."""
    simulator = Simulator(PROFILE, 0)
    calls = [ask(simulator, "limited") for _ in range(3)]
    later = ask(simulator, "limited", now=1.5)

    assert [call.outcome.status for call in calls] == [200, 200, 429]
    assert dialect.headers(calls[2])["retry-after"] == "1"
    assert dialect.headers(calls[2])["retry-after-ms"] == "1000"
    assert later.outcome.status == 200


def test_orders_override_the_profile_until_they_are_lifted() -> None:
    """A test can make a model fail, hang, be limited or answer, and give it back to its profile."""
    simulator = Simulator(PROFILE, 0)

    def after(**order: Any) -> tuple[int, str]:
        simulator.force(Force(provider="p", **order))
        outcome = ask(simulator, "faulty").outcome
        return outcome.status, outcome.code

    assert after(mode="ok") == (200, "")
    assert after(mode="hang", model="faulty") == (0, "")
    assert after(mode="error", model="faulty", status=401, code="invalid_api_key") == (401, "invalid_api_key")
    assert after(mode="rate_limit", model="faulty", retry_after_s=9) == (429, "rate_limit_exceeded")
    assert after(mode="profile", model="faulty") == (200, "")
    assert after(mode="profile")[0] in {500, 503}


def test_an_order_for_a_model_that_does_not_exist_is_an_error() -> None:
    """A misspelt name must not be an order that never matters."""
    with pytest.raises(LookupError, match="no p/mm"):
        Simulator(PROFILE, 0).force(Force(provider="p", model="mm", mode="ok"))


def test_a_stream_tells_the_same_answer_in_pieces_within_the_drawn_time() -> None:
    """The pieces join to the text, the waits sum to the latency, usage comes last if asked for."""
    exchange = ask(Simulator(PROFILE, 0), stream=True, stream_options={"include_usage": True})
    told = list(dialect.events(exchange))
    chunks = [json.loads(event.removeprefix(b"data: ")) for _, event in told[:-1]]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]

    assert "".join(pieces) == exchange.outcome.text
    assert sum(wait for wait, _ in told) == pytest.approx(exchange.outcome.latency_s)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == exchange.outcome.completion_tokens
    assert told[-1][1] == b"data: [DONE]\n\n"
