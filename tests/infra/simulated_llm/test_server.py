"""The server over a real socket: what it answers, and what its log says of clients that vanish."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infra.simulated_llm.calls import CallLog
from infra.simulated_llm.profile import parse
from infra.simulated_llm.server import Server
from infra.simulated_llm.simulator import Simulator

PROFILE = parse("""
providers:
  p:
    models:
      quick: {}
      slow: {latency: {ttft_median_ms: 120000}}
      dead: {faults: {hang: 1}}
      faulty: {faults: {error: 1, error_statuses: [503]}}
      limited: {faults: {rate_limit: 1}, retry_after_s: 2}
  q: {models: {other: {}}}
""")
SLOW_S, _PATIENCE_S = 100.0, 60.0
"""A slow call takes longer than the one, and nothing is waited for longer than the other."""
FIELDS = {"time", "ended", "provider", "model", "idempotency_key", "request_id", "status"}


class Running:
    """A server on a free port with its log of calls."""

    def __init__(self, server: Server, url: str, calls: Path, client: aiohttp.ClientSession) -> None:
        self.server, self.url, self.calls, self.client = server, url, calls, client

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return [json.loads(line) for line in self.calls.read_text(encoding="utf-8").splitlines()]

    async def ask(self, model: str, **more: Any) -> tuple[int, Any, dict[str, str]]:
        """Make a call; return status, parsed body and headers."""
        async with self.client.post(
            f"{self.url}/p/v1/chat/completions",
            json=asked(model, **more),
            headers={"Idempotency-Key": "job-1", "X-Request-Id": "request-1"},
        ) as response:
            return response.status, await response.json(), {k.lower(): v for k, v in response.headers.items()}

    async def until_logged(self, count: int) -> list[dict[str, Any]]:
        """Wait until the log has *count* lines."""
        async with asyncio.timeout(_PATIENCE_S):
            while len(self.logged()) < count:  # noqa: ASYNC110 - what is awaited happens beyond a socket or in a file
                await asyncio.sleep(0.01)
        return self.logged()

    async def until_in_flight(self, count: int) -> None:
        """Wait until the server has *count* calls in flight."""
        async with asyncio.timeout(_PATIENCE_S):
            while (await self.get("/health"))["in_flight"] != count:  # noqa: ASYNC110 - what is awaited happens beyond a socket or in a file
                await asyncio.sleep(0.01)

    async def get(self, path: str) -> Any:
        """Return the parsed answer to a GET."""
        async with self.client.get(f"{self.url}{path}") as response:
            return await response.json()


def asked(model: str, **more: Any) -> dict[str, Any]:
    """Return a chat completions body."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """Run a server for the length of a test."""
    path = tmp_path / "calls.jsonl"
    with CallLog(path) as calls:
        server = Server(PROFILE, 3, calls)
        port = await server.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession() as client:
                yield Running(server, f"http://127.0.0.1:{port}", path, client)
        finally:
            await server.stop()


async def test_a_call_is_answered_as_drawn_and_logged(tmp_path: Path) -> None:
    """The socket adds nothing to what the pure simulator says; the log has one line with every field."""
    async with running(tmp_path) as it:
        status, answer, headers = await it.ask("quick")
        (line,) = it.logged()
    expected = Simulator(PROFILE, 3).begin(
        "p", json.dumps(asked("quick")).encode(), {"idempotency-key": "job-1"}, 0.0
    )

    assert status == 200
    assert answer["choices"][0]["message"]["content"] == expected.outcome.text
    assert headers["x-simulated"] == "true"
    assert headers["x-request-id"] == "request-1"
    assert set(line) == FIELDS
    assert (line["provider"], line["model"], line["status"]) == ("p", "quick", 200)
    assert (line["idempotency_key"], line["request_id"]) == ("job-1", "request-1")
    assert line["time"] <= line["ended"]


async def test_errors_and_limits_come_in_the_error_format(tmp_path: Path) -> None:
    """A 503 and a 429 carry an error object; the 429 says how long to wait."""
    async with running(tmp_path) as it:
        broken = await it.ask("faulty")
        limited = await it.ask("limited")
        unknown = await it.ask("zzz")

    assert (broken[0], broken[1]["error"]["type"]) == (503, "server_error")
    assert (limited[0], limited[1]["error"]["code"], limited[2]["retry-after"]) == (
        429,
        "rate_limit_exceeded",
        "2",
    )
    assert (unknown[0], unknown[1]["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("model", ["dead", "slow"])
async def test_a_client_that_goes_away_is_logged_as_unanswered(model: str, tmp_path: Path) -> None:
    """A hung or slow call is over, and in the log, as soon as its client's connection is."""
    async with running(tmp_path) as it:
        asking = asyncio.create_task(it.ask(model))
        await it.until_in_flight(1)
        asking.cancel()
        (line,) = await it.until_logged(1)

    assert (line["model"], line["status"], line["idempotency_key"]) == (model, 0, "job-1")
    assert line["ended"] - line["time"] < SLOW_S


async def test_stopping_logs_every_call_in_flight(tmp_path: Path) -> None:
    """Calls that the server cuts off are in the log when it has stopped."""
    async with running(tmp_path) as it:
        tasks = [asyncio.create_task(it.ask("dead")) for _ in range(5)]
        await it.until_in_flight(5)
        await it.server.stop()
        lines = it.logged()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert [line["status"] for line in lines] == [0] * 5


async def test_a_stream_is_told_as_server_sent_events(tmp_path: Path) -> None:
    """Streaming ends with usage and DONE, and is logged as answered."""
    async with running(tmp_path) as it:
        body = asked("quick", stream=True, stream_options={"include_usage": True})
        async with it.client.post(f"{it.url}/p/v1/chat/completions", json=body) as response:
            kind = response.content_type
            lines = [line for line in (await response.text()).split("\n\n") if line]
        (logged,) = it.logged()

    assert kind == "text/event-stream"
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["usage"]["completion_tokens"] == 64
    assert logged["status"] == 200


async def test_a_test_can_give_orders(tmp_path: Path) -> None:
    """POST /control changes a provider's behaviour; a wrong order is refused."""
    async with running(tmp_path) as it:

        async def order(**fields: Any) -> int:
            async with it.client.post(f"{it.url}/control", json=fields) as response:
                return response.status

        accepted = await order(provider="p", mode="error", status=500)
        broken, _, _ = await it.ask("quick")
        await order(provider="p", mode="profile")
        healed, _, _ = await it.ask("quick")
        refused = [await order(provider="p", mode="explode"), await order(provider="z", mode="ok")]

    assert (accepted, broken, healed, refused) == (200, 500, 200, [400, 404])


async def test_health_and_models_say_what_is_served(tmp_path: Path) -> None:
    """Health names the providers and counts calls; models are listed by provider or all together."""
    async with running(tmp_path) as it:
        await it.ask("quick")
        health = await it.get("/health")
        of_q = await it.get("/q/v1/models")
        all_of_them = await it.get("/v1/models")

    assert (health["status"], health["providers"], health["in_flight"], health["ended"]) == (
        "ok",
        ["p", "q"],
        0,
        1,
    )
    assert [model["id"] for model in of_q["data"]] == ["other"]
    assert len(all_of_them["data"]) == 6
