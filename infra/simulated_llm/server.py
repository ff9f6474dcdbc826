"""The HTTP server: reads calls, waits as drawn, answers, and logs how each call ended."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from pydantic import ValidationError

from infra.simulated_llm import dialect
from infra.simulated_llm.calls import ABORTED, CallLog
from infra.simulated_llm.model import HANG, OK
from infra.simulated_llm.simulator import Exchange, Force, Simulator

if TYPE_CHECKING:
    from infra.simulated_llm.profile import Profile

_BODY_LIMIT = 32 * 1024 * 1024
_MARK = {"x-simulated": "true"}
# Handlers that are still waiting at the end are cut off: their clients are being stopped too,
# and the log has to say that nobody got those answers.
_SHUTDOWN_S = 0.1


class Server:
    """Every provider of a profile on one port, each below its own name.

    ``POST /PROVIDER/v1/chat/completions``, ``GET /PROVIDER/v1/models``, both also without a
    provider (the first that serves the model), ``GET /health``, ``POST /control`` (a `Force`).
    """

    def __init__(self, profile: Profile, seed: int, calls: CallLog | None = None) -> None:
        self.simulator = Simulator(profile, seed)
        self._calls = calls
        self._in_flight = 0
        self._ended = 0
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port, which the system chooses if *port* is 0.

        Raises:
            OSError: the address cannot be bound.
        """
        app = web.Application(client_max_size=_BODY_LIMIT)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/{provider}/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/{provider}/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_post("/control", self._control)
        # Without handler_cancellation a call whose client died would run on and be logged as answered.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_S,
            keepalive_timeout=600.0,
        )
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, host, port, backlog=1024)
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening, cut off the calls in flight and log them."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        started = time.time()
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _failure(413, "request_too_large", f"The body exceeds {_BODY_LIMIT} bytes.")
        names = {name.lower(): value for name, value in request.headers.items()}
        exchange = self.simulator.begin(request.match_info.get("provider", ""), body, names, started)
        status = ABORTED
        self._in_flight += 1
        try:
            response = await self._answer(request, exchange)
            status = exchange.outcome.status
        finally:
            self._in_flight -= 1
            self._ended += 1
            if self._calls is not None:
                self._calls.append(exchange.record(started, time.time(), status))
        return response

    async def _answer(self, request: web.Request, exchange: Exchange) -> web.StreamResponse:
        outcome = exchange.outcome
        if outcome.status == HANG:
            await asyncio.Event().wait()
        if exchange.stream and outcome.status == OK:
            return await _stream(request, exchange)
        if outcome.latency_s > 0.0:
            await asyncio.sleep(outcome.latency_s)
        return web.Response(
            status=outcome.status, body=dialect.body(exchange), headers=dialect.headers(exchange)
        )

    async def _models(self, request: web.Request) -> web.Response:
        provider = request.match_info.get("provider", "")
        if provider and provider not in self.simulator.profile.providers:
            return _failure(404, "provider_not_found", "There is no such simulated provider.")
        return web.Response(
            body=dialect.models(self.simulator.profile, provider),
            content_type="application/json",
            headers=_MARK,
        )

    async def _health(self, _request: web.Request) -> web.Response:
        state = {
            "status": "ok",
            "simulated": True,
            "providers": list(self.simulator.profile.providers),
            "in_flight": self._in_flight,
            "ended": self._ended,
        }
        return web.Response(body=orjson.dumps(state), content_type="application/json", headers=_MARK)

    async def _control(self, request: web.Request) -> web.Response:
        try:
            self.simulator.force(Force.model_validate_json(await request.read()))
        except ValidationError as error:
            return _failure(400, "invalid_request_error", str(error))
        except LookupError as error:
            return _failure(404, "model_not_found", str(error))
        return web.Response(body=b'{"status":"ok"}', content_type="application/json", headers=_MARK)


async def _stream(request: web.Request, exchange: Exchange) -> web.StreamResponse:
    sent = {**dialect.headers(exchange), "content-type": "text/event-stream", "cache-control": "no-cache"}
    response = web.StreamResponse(headers=sent)
    for wait_s, event in dialect.events(exchange):
        if wait_s > 0.0:
            await asyncio.sleep(wait_s)
        if not response.prepared:
            await response.prepare(request)
        await response.write(event)
    await response.write_eof()
    return response


def _failure(status: int, code: str, message: str) -> web.Response:
    return web.Response(
        status=status,
        body=dialect.error(status, code, message),
        content_type="application/json",
        headers=_MARK,
    )
