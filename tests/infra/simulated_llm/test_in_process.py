"""The simulator without a socket: same outcomes, the caller's own types, timeouts."""

import asyncio
import json
from pathlib import Path

import pytest

from agents.errors import CallTimeout
from agents.ports import Complete, HttpCall, HttpReply
from infra.simulated_llm.calls import CallLog
from infra.simulated_llm.in_process import InProcess
from infra.simulated_llm.profile import parse

PROFILE = parse("""
providers:
  p:
    models:
      slow: {latency: {ttft_median_ms: 30000}}
      quick: {latency: {ttft_median_ms: 5}}
      dead: {faults: {hang: 1}}
""")


def call(model: str, timeout_s: float = 60.0) -> HttpCall:
    """Return a call with a key and a request id."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]}).encode()
    return HttpCall(
        "/chat/completions", body, {"Idempotency-Key": "job", "X-Request-Id": "request"}, timeout_s
    )


async def test_it_satisfies_the_port_and_does_not_wait_at_pace_zero() -> None:
    """A reply of thirty drawn seconds comes at once and says thirty seconds."""
    complete: Complete = InProcess(PROFILE, 0, reply=HttpReply, timed_out=CallTimeout, pace=0.0)
    reply = await complete("p", call("slow"))

    assert isinstance(reply, HttpReply)
    assert reply.status == 200
    assert reply.elapsed_s == pytest.approx(30.0)
    assert reply.headers["x-simulated"] == "true"
    assert reply.headers["x-request-id"] == "request"


@pytest.mark.parametrize("model", ["slow", "dead"])
async def test_a_call_that_outlasts_its_timeout_raises_the_callers_own_error(
    model: str, tmp_path: Path
) -> None:
    """Slow and hung calls end in CallTimeout and are logged as unanswered."""
    path = tmp_path / "calls.jsonl"
    with CallLog(path) as log:
        complete = InProcess(PROFILE, 0, reply=HttpReply, timed_out=CallTimeout, calls=log)
        with pytest.raises(CallTimeout, match=r"p: no answer within 0\.01 s"):
            await complete("p", call(model, timeout_s=0.01))

    (line,) = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert (line["model"], line["status"], line["idempotency_key"]) == (model, 0, "job")


async def test_calls_overlap(tmp_path: Path) -> None:
    """Waiting for one call does not hold up another; a cancelled one is logged as unanswered."""
    with CallLog(tmp_path / "calls.jsonl") as log:
        complete = InProcess(PROFILE, 0, reply=HttpReply, calls=log)
        hung = asyncio.create_task(complete("p", call("dead")))
        reply = await complete("p", call("quick"))
        hung.cancel()
        await asyncio.gather(hung, return_exceptions=True)

    lines = [json.loads(text) for text in (tmp_path / "calls.jsonl").read_text(encoding="utf-8").splitlines()]
    assert reply.status == 200
    assert [(line["model"], line["status"]) for line in lines] == [("quick", 200), ("dead", 0)]
