"""NVIDIA's Triton server on CPU: the real binary over a model repository, on loopback."""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.local.background import in_background
from infra.local.errors import PortTaken, StackError, StartFailed
from infra.local.http_health import answers_ok
from infra.local.machine import cache_folder
from infra.local.ports import LOOPBACK, free_ports
from infra.local.process import Command, Process
from infra.local.service import until_healthy
from infra.local.triton_env import TritonEnvironment, ensure_triton_env

START_TIMEOUT = 120.0
EXIT_SECONDS = 8
STOP_GRACE = EXIT_SECONDS + 7.0
ATTEMPTS = 3
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- where the Python backend puts its regions
_CLASH = ("Address already in use", "failed to start HTTP service", "failed to start GRPC service")


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How to run the server: *models* empty loads the whole repository."""

    folder: Path
    repository: Path
    models: tuple[str, ...] = ()
    cache: Path | None = None
    arguments: tuple[str, ...] = ()


class Triton:
    """An embedded Triton server; a later start keeps its ports."""

    name = "triton"

    def __init__(self, options: TritonOptions, *, marker: str | None = None) -> None:
        self.options = options
        self._marker = marker or secrets.token_hex(8)
        self._process: Process | None = None
        self._ports: tuple[int, ...] | None = None

    @property
    def address(self) -> str:
        """``host:port`` of gRPC, which is what clients use."""
        return self._at(0)

    @property
    def http_address(self) -> str:
        """``host:port`` of HTTP."""
        return self._at(1)

    @property
    def metrics_address(self) -> str:
        """``host:port`` of the Prometheus metrics (path ``/metrics``)."""
        return self._at(2)

    @property
    def process(self) -> Process | None:
        """The server's process, None before the first start."""
        return self._process

    async def start(self) -> str:
        """Start, wait until the server and every model is ready; returns the gRPC address.

        Raises:
            StackError: the environment cannot be made, the repository or a model is
                missing, the server died, or was not ready in time.
        """
        options = self.options
        for folder in (options.repository, *(options.repository / model for model in options.models)):
            if not folder.is_dir():
                raise StackError(
                    f"Triton's model folder {folder} does not exist: build the models (make triton), "
                    "or use a policy that needs none (--no-triton)"
                )
        found = await in_background(lambda: ensure_triton_env(cache_folder(options.cache)))
        for attempt in range(1, ATTEMPTS + 1):
            self._ports = self._ports or free_ports(3)
            try:
                await self._launch(found)
            except StartFailed as error:
                await self.stop()
                if not any(words in str(error) for words in _CLASH):
                    raise
                if attempt == ATTEMPTS:
                    raise PortTaken(f"Triton's ports {self._ports} were taken while it started") from error
                self._ports = None
            except BaseException:
                await self.stop()
                raise
            else:
                break
        return self.address

    async def health(self) -> bool:
        """Return whether the server and every named model is ready."""
        if self._process is None or not self._process.running:
            return False
        base = f"http://{self.http_address}/v2"
        return await answers_ok(
            f"{base}/health/ready", *(f"{base}/models/{model}/ready" for model in self.options.models)
        )

    async def stop(self) -> None:
        """Stop the server: it finishes what is in flight, for some seconds at most."""
        if self._process is not None:
            await self._process.stop(STOP_GRACE)
        clear_shared_memory(self._marker)

    async def kill(self) -> None:
        """End the server and its backends with SIGKILL, as a crash would."""
        if self._process is not None:
            await self._process.kill()
        clear_shared_memory(self._marker)

    def _at(self, which: int) -> str:
        if self._ports is None:
            raise StackError("Triton has no address before it is started")
        return f"{LOOPBACK}:{self._ports[which]}"

    async def _launch(self, found: TritonEnvironment) -> None:
        command = Command(
            "triton", self._arguments(found), self.options.folder / "triton.log", env=found.variables()
        )
        self._process = await Process.spawn(command, marker=self._marker)
        await until_healthy("Triton", self.health, self._process, within=START_TIMEOUT)

    def _arguments(self, found: TritonEnvironment) -> tuple[str, ...]:
        options = self.options
        grpc, http, metrics = self._ports or (0, 0, 0)
        arguments = [
            str(found.server),
            f"--model-repository={options.repository.absolute()}",
            f"--backend-directory={found.backends}",
            f"--backend-config=python,shm-region-prefix-name={region_prefix(self._marker)}",
            f"--http-address={LOOPBACK}", f"--http-port={http}",
            f"--grpc-address={LOOPBACK}", f"--grpc-port={grpc}",
            f"--metrics-address={LOOPBACK}", f"--metrics-port={metrics}",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={EXIT_SECONDS}",
        ]  # fmt: skip
        if options.models:
            arguments += [
                "--model-control-mode=explicit",
                *(f"--load-model={model}" for model in options.models),
            ]
        return (*arguments, *options.arguments)


def region_prefix(marker: str) -> str:
    """Return how the shared-memory regions of one stack's backends are named."""
    return f"signalbox-{marker}-"


def clear_shared_memory(marker: str) -> None:
    """Remove the regions that a killed backend left behind."""
    for region in SHARED_MEMORY.glob(f"{region_prefix(marker)}*"):
        with suppress(OSError):
            region.unlink()
