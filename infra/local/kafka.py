"""Apache Kafka as the stack's broker: one KRaft node from pinned jars, data on disk.

``python -m infra.local.kafka --dir DIR`` runs one until SIGTERM, for debugging.
"""

import argparse
import asyncio
import base64
import secrets
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from infra.local import kafka_properties
from infra.local.background import in_background
from infra.local.broker import broker_answers
from infra.local.errors import PortTaken, StackError, StartFailed, explain_os_error
from infra.local.kafka_jars import ensure_jars
from infra.local.kafka_security import SecureListener, argument_file
from infra.local.machine import cache_folder, find_java
from infra.local.ports import LOOPBACK, free_ports, is_free
from infra.local.process import Command, Process
from infra.local.service import until_healthy

START_TIMEOUT = 90.0
STOP_GRACE = 20.0
ATTEMPTS = 3
_ARGUMENTS = "format.arguments"
_CLASH = "Address already in use"


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to run the broker: *port* None keeps the last one if it is free."""

    folder: Path
    port: int | None = None
    heap: str = "512m"
    properties: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None
    secure: SecureListener | None = None


class Kafka:
    """An embedded broker whose data outlives it in its folder."""

    name = "kafka"

    def __init__(self, options: KafkaOptions, *, marker: str | None = None) -> None:
        self.options = options
        self._marker = marker
        self._process: Process | None = None
        self._port: int | None = options.port

    @property
    def address(self) -> str:
        """``host:port`` of the client listener, once started."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def process(self) -> Process | None:
        """The broker's process, None before the first start."""
        return self._process

    @property
    def cluster_id(self) -> str:
        """The id that the data folder was formatted with."""
        return kafka_properties.parse(self._meta.read_text(encoding="ascii"))["cluster.id"]

    async def start(self) -> str:
        """Start on the data folder, formatting it if it is new; returns the address.

        A later start after stop, kill or crash keeps records, port and cluster id.

        Raises:
            MissingDependency: there is no Java.
            DownloadFailed: the jars cannot be had.
            PortTaken: the wanted port is in use.
            StartFailed: the broker died or did not answer in time.
        """
        options = self.options
        java = await in_background(find_java)
        jars = await in_background(lambda: ensure_jars(cache_folder(options.cache)))
        try:
            options.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, options.folder) from error
        base = (str(java), f"-Xmx{options.heap}", *self._jvm_options(jars))
        for attempt in range(1, ATTEMPTS + 1):
            self._write_settings(*self._choose_ports())
            await self._format(base)
            try:
                await self._launch(base)
            except StartFailed as error:
                await self.stop()
                clashed = _CLASH in str(error) or _CLASH in self._server_log_tail()
                if not clashed:
                    raise
                if attempt == ATTEMPTS or options.port is not None:
                    raise PortTaken(
                        f"Kafka's port {self._port} was taken while it started (ss -ltnp shows by whom)"
                    ) from error
                self._port = None
            except BaseException:
                await self.stop()
                raise
            else:
                break
        return self.address

    async def health(self) -> bool:
        """Return whether the broker answers a metadata request."""
        if self._process is None or not self._process.running:
            return False
        secure = self.options.secure
        return await broker_answers(self.address, secure.client if secure else None)

    async def stop(self) -> None:
        """Shut the broker down; records stay."""
        if self._process is not None:
            await self._process.stop(STOP_GRACE)

    async def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would."""
        if self._process is not None:
            await self._process.kill()

    @property
    def _meta(self) -> Path:
        return self.options.folder / "data" / "meta.properties"

    @property
    def _settings(self) -> Path:
        return self.options.folder / "server.properties"

    @property
    def _logs(self) -> Path:
        return self.options.folder / "logs"

    def _server_log_tail(self) -> str:
        return "" if self._process is None else self._process.tail(200)

    def _choose_ports(self) -> tuple[int, int]:
        if self.options.port is not None and not is_free(self.options.port):
            raise PortTaken(
                f"port {self.options.port} is in use (ss -ltnp shows by whom): stop that program, "
                "or let the stack choose a port"
            )
        port = self._port or self._last_port()
        if port is None or not is_free(port):
            (port,) = free_ports(1)
        (controller,) = free_ports(1, avoid=(port,))
        self._port = port
        return port, controller

    def _last_port(self) -> int | None:
        try:
            text = self._settings.read_text(encoding="utf-8")
        except OSError:
            return None
        listeners = kafka_properties.parse(text).get("advertised.listeners", "")
        number = listeners.partition(",")[0].rpartition(":")[2]
        return int(number) if number.isdigit() else None

    def _write_settings(self, port: int, controller: int) -> None:
        extra = dict(self.options.properties)
        if self.options.secure is not None:
            (internal,) = free_ports(1, avoid=(port, controller))
            extra = self.options.secure.properties(port, controller, internal) | extra
        values = kafka_properties.properties(self.options.folder.absolute() / "data", port, controller, extra)
        try:
            self._settings.write_text(kafka_properties.render(values), encoding="utf-8")
        except OSError as error:
            raise explain_os_error(error, self._settings) from error

    def _jvm_options(self, jars: tuple[Path, ...]) -> tuple[str, ...]:
        log4j = resources.files("infra.local").joinpath("kafka-log4j2.properties")
        return (
            "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:+ExplicitGCInvokesConcurrent", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={log4j}", f"-Dsignalbox.logs={self._logs.absolute()}",
            "-cp", ":".join(map(str, jars)),
        )  # fmt: skip

    async def _format(self, base: tuple[str, ...]) -> None:
        if self._meta.exists():
            return
        log = self._logs / "format.log"
        argv = (*base, "kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", str(self._settings))
        if self.options.secure is not None:
            argv = self._hidden((*argv, *self.options.secure.credentials()))
        process = await Process.spawn(Command("kafka format", argv, log), marker=self._marker)
        try:
            code = await asyncio.wait_for(process.wait(), START_TIMEOUT)
        finally:
            await process.kill()
            (self.options.folder / _ARGUMENTS).unlink(missing_ok=True)
        if code != 0:
            raise StartFailed(
                f"Kafka could not format {self._meta.parent} (exit {code}): if it is full, free some space; "
                f"if it holds something else, name another folder. The end of {log}:\n{process.tail()}"
            )

    def _hidden(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """Return *argv* with all but the program in a file: arguments show in every list of processes."""
        path = self.options.folder / _ARGUMENTS
        path.touch(mode=0o600)
        path.write_text(argument_file(argv[1:]), encoding="utf-8")
        return argv[0], f"@{path}"

    async def _launch(self, base: tuple[str, ...]) -> None:
        command = Command("kafka", (*base, "kafka.Kafka", str(self._settings)), self._logs / "kafka.log")
        self._process = await Process.spawn(command, marker=self._marker)
        await until_healthy("Kafka", self.health, self._process, within=START_TIMEOUT)


def new_cluster_id() -> str:
    """Return a cluster id in Kafka's form: 16 random bytes, URL-safe base64."""
    while True:
        text = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        # A leading dash reads as an option on the command line.
        if not text.startswith("-"):
            return text


async def _serve(folder: Path, port: int | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    kafka = Kafka(KafkaOptions(folder=folder, port=port))
    starting = asyncio.ensure_future(kafka.start())
    waiting = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            sys.stdout.write(f"{starting.result()}\n")
            sys.stdout.flush()
            await waiting
    finally:
        starting.cancel()
        waiting.cancel()
        await asyncio.gather(starting, waiting, return_exceptions=True)
        await kafka.stop()


def main() -> int:
    """Run one broker until SIGTERM; prints its address when it is ready."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.kafka", description=main.__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="where data and logs live")
    parser.add_argument("--port", type=int, help="client port (default: the last one, or a free one)")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.dir, arguments.port))
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
