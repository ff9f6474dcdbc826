"""One worker process: a role, its HTTP endpoint for metrics and health, and a graceful end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web
from prometheus_client import generate_latest

from agents.errors import ConfigError, Unavailable
from agents.ports import Inference
from streams.app import Ports, load_registries, make_world, runner_for
from streams.clients.provider import HttpProviders
from streams.clients.retrying import RetryingInfer
from streams.host import Fleet, Host
from streams.kafka import KafkaLog
from streams.log import Log
from streams.runners import Runner
from streams.settings import Settings, wall_clock
from streams.telemetry import Telemetry

_LOOKS = 10
_LOOK_AGAIN_S = 0.5


async def no_classifier(classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
    """Stand where no Triton is configured: every classified signal fails, and says so."""
    del texts, timeout_s
    raise Unavailable(f"no Triton is configured for classifier {classifier!r}; set SIGNALBOX_TRITON")


async def ports_for(role: str, settings: Settings, stack: AsyncExitStack) -> Ports:
    """Return the ports that *role* needs, closed with *stack*."""
    complete = HttpProviders({}, concurrency=settings.concurrency)
    if role.startswith("provider."):
        complete = HttpProviders(settings.endpoints(), concurrency=settings.concurrency)
    await stack.enter_async_context(complete)
    if role.startswith("signals.") and settings.triton:
        # gRPC costs 80 ms and 20 MB to import, which only this role needs.
        from streams.clients.triton import TritonInfer  # noqa: PLC0415

        infer = await stack.enter_async_context(TritonInfer(settings.triton))
        return Ports(RetryingInfer(infer), complete)
    return Ports(no_classifier, complete)


async def _check_topics(log: Log, runner: Runner) -> None:
    """Raise `ConfigError` if an input does not exist: the group would wait for it without a word."""
    for topic in runner.topics:
        for _ in range(_LOOKS):
            if await log.partitions(topic):
                break
            await asyncio.sleep(_LOOK_AGAIN_S)  # just created, the brokers may not all know it
        else:
            raise ConfigError(f"topic {topic!r} does not exist; `signalbox up` creates what its policy needs")


class Worker:
    """Runs one role until told to stop; `failed` holds what it must not survive."""

    def __init__(self, role: str, instance: str, settings: Settings) -> None:
        self._role = role
        self._settings = settings
        self._telemetry = Telemetry(wall_clock, role)
        self._instance = f"{role}-{instance}"
        self._stop = asyncio.Event()
        self._ready = False
        self.failed: BaseException | None = None
        self._telemetry.failed = self._fail

    def _fail(self, _stage: str, error: BaseException) -> None:
        self.failed = self.failed or error
        self._stop.set()

    async def run(self, port_file: Path | None) -> int:
        """Run until SIGTERM or SIGINT (exit code 0) or a failure (3).

        Raises `ConfigError` for a role that does not exist or has no topics, `Unavailable` without a broker.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        load_registries()
        async with AsyncExitStack() as stack:
            await self._serve_http(stack, port_file)
            log = KafkaLog(self._settings.kafka)
            await log.start()
            stack.push_async_callback(log.stop)
            world = make_world(log, self._telemetry, self._instance, self._settings.claim_check())
            await world.policies.start()
            stack.push_async_callback(world.policies.stop)
            ports = await ports_for(self._role, self._settings, stack)
            context = self._settings.context(await log.cluster_id())
            try:
                runner = runner_for(self._role, world, ports, self._settings.tuning, {}, context)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            await _check_topics(log, runner)
            host = Host(runner, log, self._telemetry, self._instance, world.pauses)
            fleet = Fleet(self._role, [host])
            await fleet.start()
            self._telemetry.event("WorkerStarted", instance=self._instance)
            await self._until_stopped(host)
            self._ready = False
            await fleet.stop(self._settings.drain_s)
            self._telemetry.event("WorkerStopped", instance=self._instance)
        return 3 if self.failed is not None else 0

    async def _until_stopped(self, host: Host) -> None:
        assigned = asyncio.create_task(host.assigned_once.wait())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({assigned, stopped}, return_when=asyncio.FIRST_COMPLETED)
        self._ready = assigned.done()
        await stopped
        assigned.cancel()

    async def _serve_http(self, stack: AsyncExitStack, port_file: Path | None) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/healthz", self._healthz)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        if port_file is not None:
            temporary = port_file.with_name(port_file.name + ".part")
            temporary.write_text(str(runner.addresses[0][1]))
            temporary.replace(port_file)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._telemetry.registry), content_type="text/plain")

    async def _readyz(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"ready": self._ready, "role": self._role}, status=200 if self._ready else 503
        )

    async def _healthz(self, _request: web.Request) -> web.Response:
        healthy = self.failed is None
        return web.json_response({"healthy": healthy}, status=200 if healthy else 503)
