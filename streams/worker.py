"""One worker process: a role, its HTTP endpoint for metrics and health, and a graceful end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from agents.errors import ConfigError, Fenced, InvalidRecord, Unavailable
from agents.ports import Inference
from streams.app import Ports, load_registries, make_world, runner_for
from streams.clients.provider import HttpProviders
from streams.clients.retrying import RetryingComplete, RetryingInfer
from streams.health import Health
from streams.host import Fleet, Host
from streams.kafka import KafkaLog
from streams.log import Log
from streams.runners import Runner
from streams.runners.archiving import Archive, ArchivePlace, OpenArchive
from streams.settings import Settings, wall_clock
from streams.telemetry import Telemetry
from streams.watchdog import STUCK_EXIT, LoopMonitor, Stuck, Watchdog, end_process

_LOOKS = 10
_LOOK_AGAIN_S = 0.5
_LEAVE_S = 15.0
"""Granted beyond the drain to commit, leave the group and close connections."""


async def no_classifier(classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
    """Stand where no Triton is configured: every classified signal fails, and says so."""
    del texts, timeout_s
    raise Unavailable(f"no Triton is configured for classifier {classifier!r}; set SIGNALBOX_TRITON")


async def ports_for(role: str, settings: Settings, stack: AsyncExitStack) -> Ports:
    """Return the ports that *role* needs, closed with *stack*."""
    endpoints = settings.endpoints() if role.startswith("provider.") else {}
    providers = HttpProviders(endpoints, concurrency=settings.concurrency, linger_s=settings.linger_s)
    complete = RetryingComplete(await stack.enter_async_context(providers), settings.connect_budget_s)
    if role.startswith("signals.") and settings.triton:
        # gRPC costs 80 ms and 20 MB to import, which only this role needs.
        from streams.clients.triton import TritonInfer, TritonTls  # noqa: PLC0415

        tls = TritonTls.of(settings.triton_security)
        infer = await stack.enter_async_context(TritonInfer(settings.triton, tls=tls))
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

    def __init__(
        self, role: str, instance: str, settings: Settings, open_archive: OpenArchive | None = None
    ) -> None:
        self._role = role
        self._open_archive = open_archive
        self._settings = settings
        self._telemetry = Telemetry(wall_clock, role)
        self._instance = f"{role}-{instance}"
        self._health = Health(self._telemetry, role, instance)
        self._stop = asyncio.Event()
        self._telemetry.failed = lambda _stage, error: self._fail(error)
        self._monitor = LoopMonitor(settings.stuck_s, partial(end_process, self._telemetry))

    @property
    def failed(self) -> BaseException | None:
        """What it must not survive; None if nothing happened."""
        return self._health.failed

    def _fail(self, error: BaseException) -> None:
        self._health.failed = self._health.failed or error
        self._end()

    def _end(self) -> None:
        """Begin to stop; a process that does not manage to is ended."""
        self._health.stopping = True
        self._monitor.must_end(self._settings.drain_s + _LEAVE_S)
        self._stop.set()

    def _signalled(self, number: signal.Signals) -> None:
        """Drain at the first signal, end at once at the second: what is not committed is done again."""
        if self._stop.is_set():
            self._telemetry.event("WorkerStopped", "warning", instance=self._instance, drained=False)
            os._exit(128 + number)
        self._end()

    async def run(self, port_file: Path | None) -> int:
        """Run until SIGTERM or SIGINT (exit code 0), a failure (3) or a standstill (5).

        Raises `ConfigError` for a role that does not exist or has no topics, `Unavailable` without a broker.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        load_registries()
        self._monitor.start()
        try:
            await self._run(port_file)
        except Fenced as error:  # while it joined; afterwards its host tells
            self._telemetry.fatal(self._role, error)
        finally:
            self._monitor.stop()
        if isinstance(self.failed, Stuck):
            return STUCK_EXIT
        return 3 if self.failed is not None else 0

    async def _run(self, port_file: Path | None) -> None:
        async with AsyncExitStack() as stack:
            await self._health.serve(stack, port_file)
            log = KafkaLog(self._settings.kafka)
            watchdog = self._watched(log, stack)
            await log.start()
            stack.push_async_callback(log.stop)
            world = make_world(
                log,
                self._telemetry,
                self._instance,
                self._settings.claim_check(),
                self._settings.letter_limits,
                compiled=self._settings.codec == "compiled",
            )
            await world.policies.start()
            stack.push_async_callback(world.policies.stop)
            ports = await ports_for(self._role, self._settings, stack)
            context = self._settings.context(await log.cluster_id())
            if self._role == "archive":
                ports = replace(ports, archive=self._archive(context.cluster))
            try:
                runner = runner_for(self._role, world, ports, self._settings.tuning, {}, context)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            await _check_topics(log, runner)
            host = watchdog.host = Host(runner, log, self._telemetry, self._instance, world.pauses)
            fleet = Fleet(self._role, [host])
            await fleet.start()
            self._telemetry.event("WorkerStarted", instance=self._instance)
            await self._until_stopped(host)
            await fleet.stop(self._settings.drain_s)
            self._telemetry.event("WorkerStopped", instance=self._instance, drained=True)

    def _archive(self, cluster: str) -> Archive:
        where = self._settings.archive
        if not where or self._open_archive is None:
            raise ConfigError(
                "the role archive needs a place: pass --archive DIR, or s3://bucket/folder, or set "
                "SIGNALBOX_ARCHIVE"
            )
        try:
            return self._open_archive(
                ArchivePlace(
                    where,
                    cluster,
                    self._settings.prefix,
                    self._settings.archive_bodies,
                    self._settings.archive_retention,
                    self._settings.archive_merged_s,
                )
            )
        except (InvalidRecord, OSError) as error:
            raise ConfigError(f"archive {where}: {error}") from None

    def _watched(self, log: Log, stack: AsyncExitStack) -> Watchdog:
        """Return a watchdog that runs until *stack* closes."""
        limits = (self._settings.stuck_s, self._settings.outage_s)
        watchdog = Watchdog(log, self._telemetry, limits, self._fail)
        watchdog.beat = self._monitor.beat
        self._health.report = watchdog.report
        task = asyncio.create_task(watchdog.run(), name="watchdog")
        stack.callback(task.cancel)
        return watchdog

    async def _until_stopped(self, host: Host) -> None:
        assigned = asyncio.create_task(host.assigned_once.wait())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({assigned, stopped}, return_when=asyncio.FIRST_COMPLETED)
        self._health.ready = assigned.done()
        await stopped
        assigned.cancel()
