"""Worker processes: started, watched until ready, started again when they die."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.local.backoff import Backoff
from infra.local.deployment import WorkerSpec
from infra.local.errors import StackError, StartFailed
from infra.local.events import (
    Report,
    WorkerDied,
    WorkerReady,
    WorkerRestarted,
    WorkerStarted,
    WorkerUnstartable,
)
from infra.local.http_health import answers_ok, told
from infra.local.ports import LOOPBACK
from infra.local.process import Command, Process

READY_TIMEOUT = 90.0
STOP_GRACE = 15.0
POLL = 0.1
# So many quick deaths before it was ever ready mean that it will never be.
HOPELESS = 3


class Worker:
    """One worker of a stack, across the lives of its process."""

    def __init__(
        self, spec: WorkerSpec, folder: Path, marker: str, report: Report, *, restart: bool = True
    ) -> None:
        self.spec = spec
        self._lives = 0
        self._folder = folder
        self._marker = marker
        self._report = report
        self._restart = restart
        self._backoff = Backoff()
        self._process: Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self._lives - 1)

    @property
    def pid(self) -> int | None:
        """The pid of the present life, None between two lives."""
        process = self._process
        return process.pid if process is not None and process.running else None

    @property
    def process(self) -> Process | None:
        """The process of the present or last life."""
        return self._process

    @property
    def port_file(self) -> Path:
        """Where the worker writes its HTTP port."""
        return self._folder / f"{self.spec.role}-{self.spec.instance}.port"

    @property
    def log(self) -> Path:
        """Its log, over all lives."""
        return self._folder / f"{self.spec.role}-{self.spec.instance}.log"

    async def start(self) -> None:
        """Start its first life; from then on it is started again when it dies."""
        self._stopping = False
        await self._spawn()
        self._watching = asyncio.create_task(
            self._watch(), name=f"watch-{self.spec.role}-{self.spec.instance}"
        )

    async def health(self) -> bool:
        """Return whether the present life is ready."""
        return self.pid is not None and await ready_by(self.port_file)

    async def ready(self, within: float = READY_TIMEOUT) -> None:
        """Return when the worker is ready.

        Raises:
            StartFailed: it keeps dying, or *within* seconds were not enough.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not await self.health():
            watching = self._watching
            if self._backoff.quick_deaths >= HOPELESS or watching is None or watching.done():
                raise StartFailed(f"{self._name} keeps dying; the end of {self.log}:\n{self._tail()}")
            if loop.time() - began > within:
                raise StartFailed(
                    f"{self._name} was not ready within {within:.0f} s; the end of "
                    f"{self.log}:\n{self._tail()}"
                )
            await asyncio.sleep(POLL)
        self._report(WorkerReady(self.spec.role, self.spec.instance, loop.time() - began))

    def send(self, number: signal.Signals) -> bool:
        """Signal the present life; False if there is none."""
        return self._process is not None and self._process.identity.send(number)

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """Stop it for good: SIGTERM, *grace* seconds, SIGKILL."""
        self._stopping = True
        if self._process is not None:
            await self._process.stop(grace)
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        # A life that began while the last one was being stopped.
        if self._process is not None:
            await self._process.kill()

    @property
    def _name(self) -> str:
        return f"worker {self.spec.role}/{self.spec.instance}"

    def _tail(self) -> str:
        return "" if self._process is None else self._process.tail()

    async def _spawn(self) -> None:
        self.port_file.unlink(missing_ok=True)
        argv = (*self.spec.argv, "--http-port-file", str(self.port_file))
        self._process = await Process.spawn(
            Command(self._name, argv, self.log, self.spec.env), marker=self._marker
        )
        self._lives += 1
        self._report(WorkerStarted(self.spec.role, self.spec.instance, self._process.pid))

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        born = loop.time()
        while self._process is not None:
            process = self._process
            code = await process.wait()
            await process.kill()
            if self._stopping or not self._restart:
                return
            wait = self._backoff.after(loop.time() - born)
            self._report(WorkerDied(self.spec.role, self.spec.instance, process.pid, code, wait))
            await asyncio.sleep(wait)
            await self._revive()
            born = loop.time()

    async def _revive(self) -> None:
        while True:
            try:
                await self._spawn()
                self._report(
                    WorkerRestarted(self.spec.role, self.spec.instance, self.pid or 0, self.restarts)
                )
            except StackError as error:
                wait = max(1.0, self._backoff.after(0.0))
                self._report(WorkerUnstartable(self.spec.role, self.spec.instance, str(error), wait))
                await asyncio.sleep(wait)
            else:
                return


async def ready_by(port_file: Path) -> bool:
    """Return whether the worker that wrote *port_file* says that it is ready."""
    port = written_port(port_file)
    return port is not None and await answers_ok(f"http://{LOOPBACK}:{port}/readyz")


async def told_by(port_file: Path) -> dict[str, Any] | None:
    """Return what the worker that wrote *port_file* says of its progress; None if it says nothing."""
    port = written_port(port_file)
    return None if port is None else await told(f"http://{LOOPBACK}:{port}/healthz")


def written_port(port_file: Path) -> int | None:
    """Return the port in *port_file*, None if it holds none (yet)."""
    try:
        return int(port_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
