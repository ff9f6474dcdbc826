"""The whole stack in one process: ``async with LocalStack(config, deployment) as stack``.

Used by the supervisor, the demo, tests and the kill harness. Stops everything that it
started, however it is left.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.local.backoff import Backoff
from infra.local.deployment import BareDeployment, Deployment, Endpoints, Needs, WorkerSpec
from infra.local.errors import StackError, UsageError
from infra.local.events import (
    ComponentDied,
    ComponentReady,
    ComponentStarting,
    Report,
    StackEvent,
    StackStopping,
    TopicsPreparing,
    silent,
)
from infra.local.external import External, ExternalBroker, ExternalTriton
from infra.local.identity import marked
from infra.local.kafka import Kafka, KafkaOptions
from infra.local.process import clear_marked
from infra.local.providers import ProviderOptions, SimulatedProviders
from infra.local.service import Service
from infra.local.triton import Triton, TritonOptions, clear_shared_memory
from infra.local.workers import Worker


@dataclass(frozen=True, slots=True)
class StackConfig:
    """How to run the stack.

    ``triton`` None starts Triton if the deployment names models, False never does.
    ``keep`` starts a component again when it dies (workers always are).
    """

    folder: Path
    triton: bool | None = None
    broker: External | None = None
    external_triton: External | None = None
    profile: Path | None = None
    seed: int = 0
    cache: Path | None = None
    kafka_port: int | None = None
    kafka_properties: dict[str, str] = field(default_factory=dict)
    keep: bool = False


class LocalStack:
    """Running components and workers; ``broker``, ``triton`` and ``providers`` are services."""

    def __init__(
        self,
        config: StackConfig,
        deployment: Deployment | None = None,
        *,
        report: Report = silent,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self.deployment: Deployment = deployment or BareDeployment()
        self.marker = secrets.token_hex(8)
        self.workers: list[Worker] = []
        self._report = report
        self._changed = changed
        self._keepers: list[asyncio.Task[None]] = []
        folder = config.folder.absolute()
        self.folder = folder
        needs = self.deployment.needs()
        self.broker: Kafka | ExternalBroker = self._broker()
        self.triton: Triton | ExternalTriton | None = self._triton(needs)
        self.providers: SimulatedProviders | None = None
        if needs.simulated_providers:
            options = ProviderOptions(folder=folder / "providers", profile=config.profile, seed=config.seed)
            self.providers = SimulatedProviders(options, marker=self.marker)

    @property
    def services(self) -> tuple[Service, ...]:
        """The components, started or not."""
        every: tuple[Service | None, ...] = (self.broker, self.triton, self.providers)
        return tuple(service for service in every if service is not None)

    @property
    def endpoints(self) -> Endpoints:
        """Where the started components are."""
        broker, triton = self.config.broker, self.config.external_triton
        return Endpoints(
            broker=self.broker.address,
            broker_settings=broker.settings if broker else None,
            triton=self.triton.address if self.triton else None,
            triton_settings=triton.settings if triton else None,
            triton_metrics=self.triton.metrics_address if isinstance(self.triton, Triton) else None,
            providers=dict(self.providers.base_urls) if self.providers else {},
        )

    async def start(self) -> Endpoints:
        """Start the components at once, then make the topics; returns the endpoints.

        Raises:
            StackError: something cannot be started; everything is stopped again.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for service in self.services:
                    group.create_task(self._start(service))
            self._report_and_change(TopicsPreparing())
            await self.deployment.prepare(self.endpoints)
        except BaseExceptionGroup as failed:
            await self.stop()
            raise first_of(failed) from failed
        except BaseException:
            await self.stop()
            raise
        if self.config.keep:
            self._keepers = [asyncio.create_task(self._keep(one)) for one in self.services if one.process]
        return self.endpoints

    async def start_workers(self) -> list[Worker]:
        """Start the deployment's workers and return when all are ready.

        Raises:
            StackError: one keeps dying or is not ready in time; everything is stopped.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for spec in self.deployment.workers(self.endpoints):
                    worker = await self.spawn_worker(spec)
                    group.create_task(worker.ready())
        except BaseExceptionGroup as failed:
            await self.stop()
            raise first_of(failed) from failed
        except BaseException:
            await self.stop()
            raise
        self._changed()
        return self.workers

    async def spawn_worker(self, spec: WorkerSpec, *, restart: bool = True) -> Worker:
        """Start one worker, not waiting until it is ready (``await worker.ready()``).

        Raises:
            StackError: it cannot be started.
        """
        worker = Worker(spec, self.folder / "workers", self.marker, self._report_and_change, restart=restart)
        self.workers.append(worker)
        await worker.start()
        return worker

    async def stop(self) -> None:
        """Stop workers, then components, then whatever else carries our marker. Idempotent."""
        self._report(StackStopping())
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self.workers), return_exceptions=True)
        await asyncio.gather(*(service.stop() for service in self.services), return_exceptions=True)
        await clear_marked(lambda: marked(self.marker))
        clear_shared_memory(self.marker)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _broker(self) -> Kafka | ExternalBroker:
        config = self.config
        if config.broker is not None:
            return ExternalBroker(config.broker)
        options = KafkaOptions(
            folder=self.folder / "kafka",
            port=config.kafka_port,
            properties=config.kafka_properties,
            cache=config.cache,
        )
        return Kafka(options, marker=self.marker)

    def _triton(self, needs: Needs) -> Triton | ExternalTriton | None:
        config = self.config
        wanted = bool(needs.models) if config.triton is None else config.triton
        if not wanted:
            return None
        if config.external_triton is not None:
            return ExternalTriton(config.external_triton, needs.models)
        if needs.repository is None:
            raise UsageError("Triton is wanted, but nothing names a model repository: drop --triton")
        options = TritonOptions(
            folder=self.folder / "triton",
            repository=needs.repository,
            models=needs.models,
            cache=config.cache,
        )
        return Triton(options, marker=self.marker)

    def _report_and_change(self, event: StackEvent) -> None:
        self._report(event)
        self._changed()

    async def _start(self, service: Service) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._report_and_change(ComponentStarting(service.name))
        address = await service.start()
        self._report_and_change(ComponentReady(service.name, address, loop.time() - began))

    async def _keep(self, service: Service) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while (process := service.process) is not None:
            born = loop.time()
            code = await process.wait()
            while True:
                wait = backoff.after(loop.time() - born)
                self._report_and_change(ComponentDied(service.name, process.pid, code, wait))
                await asyncio.sleep(wait)
                born = loop.time()
                try:
                    await self._start(service)
                except StackError:
                    continue
                break


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of *group*, one that explains itself if there is one."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = list(group.exceptions)
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((error for error in leaves if isinstance(error, StackError)), leaves[0])
