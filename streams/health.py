"""What a worker tells over HTTP: metrics, and its progress, which is more than being alive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import generate_latest

from streams.telemetry import Telemetry

LOOPBACK = "127.0.0.1"


class Health:
    """The endpoint of one worker. *report* gives what a watchdog saw; see docs/operations.md."""

    def __init__(self, telemetry: Telemetry, role: str, instance: str) -> None:
        self._telemetry = telemetry
        self._who = {"role": role, "instance": instance}
        self.ready = False
        self.stopping = False
        self.failed: BaseException | None = None
        self.report: Callable[[], dict[str, Any]] = lambda: {"reasons": ["it has not finished starting"]}

    async def serve(self, stack: AsyncExitStack, port_file: Path | None) -> None:
        """Serve on a free port until *stack* closes; write the port to *port_file*, whole or not at all."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/healthz", self._healthz)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, LOOPBACK, 0)
        await site.start()
        if port_file is not None:
            temporary = port_file.with_name(port_file.name + ".part")
            temporary.write_text(str(runner.addresses[0][1]))
            temporary.replace(port_file)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._telemetry.registry), content_type="text/plain")

    async def _readyz(self, _request: web.Request) -> web.Response:
        """Answer 200 while it consumes, or would if there were something and nobody had paused it."""
        report = self.report()
        good = self.ready and not self.stopping and self.failed is None and report.get("broker", False)
        return self._answer("ready", bool(good), report)

    async def _healthz(self, _request: web.Request) -> web.Response:
        """Answer 200 unless it failed or is stuck, and then ends itself."""
        return self._answer("healthy", self.failed is None, self.report())

    def _answer(self, word: str, good: bool, report: dict[str, Any]) -> web.Response:  # noqa: FBT001 - its value is told
        reasons = list(report.get("reasons", []))
        if self.failed is not None:
            reasons.insert(0, f"{type(self.failed).__name__}: {str(self.failed)[:300]}")
        if self.stopping:
            reasons.insert(0, "it is stopping")
        body = {word: good, **self._who, **report, "stopping": self.stopping, "reasons": reasons}
        return web.json_response(body, status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)
