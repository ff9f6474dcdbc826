"""The simulated LLM providers: one process, every provider of a profile below its own name."""

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import PortTaken, StackError, StartFailed, UsageError
from infra.local.http_health import answers_ok
from infra.local.ports import LOOPBACK, free_ports
from infra.local.process import Command, Process
from infra.local.service import until_healthy
from infra.simulated_llm import profile

START_TIMEOUT = 30.0
STOP_GRACE = 5.0
ATTEMPTS = 3
_CLASH = "cannot listen"


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """How to simulate: *profile* None is the bundled one."""

    folder: Path
    profile: Path | None = None
    seed: int = 0


class SimulatedProviders:
    """The simulator as a service; a later start keeps its port and goes on with its log of calls."""

    name = "providers"

    def __init__(self, options: ProviderOptions, *, marker: str | None = None) -> None:
        self.options = options
        self._marker = marker or secrets.token_hex(8)
        self._process: Process | None = None
        self._port: int | None = None

    @property
    def address(self) -> str:
        """The root URL; a provider's base URL is in ``base_urls``."""
        if self._port is None:
            raise StackError("the simulated providers have no address before they are started")
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def base_urls(self) -> Mapping[str, str]:
        """The OpenAI-compatible base URL of each provider, by name."""
        return {name: f"{self.address}/{name}/v1" for name in self._profile().providers}

    @property
    def calls(self) -> Path:
        """The log of ended calls, one JSON object a line."""
        return self.options.folder / "calls.jsonl"

    @property
    def process(self) -> Process | None:
        """The simulator's process, None before the first start."""
        return self._process

    async def start(self) -> str:
        """Start and wait until healthy; returns the root URL.

        Raises:
            UsageError: the profile cannot be read.
            StartFailed: the simulator died or was not healthy in time.
        """
        self._profile()
        for attempt in range(1, ATTEMPTS + 1):
            if self._port is None:
                (self._port,) = free_ports(1)
            try:
                self._process = await Process.spawn(self._command(self._port), marker=self._marker)
                await until_healthy(
                    "the simulated providers", self.health, self._process, within=START_TIMEOUT
                )
            except StartFailed as error:
                await self.stop()
                if _CLASH not in str(error):
                    raise
                if attempt == ATTEMPTS:
                    raise PortTaken(
                        f"port {self._port} was taken while the simulated providers started"
                    ) from error
                self._port = None
            except BaseException:
                await self.stop()
                raise
            else:
                break
        return self.address

    async def health(self) -> bool:
        """Return whether the simulator answers."""
        if self._process is None or not self._process.running:
            return False
        return await answers_ok(f"{self.address}/health")

    async def stop(self) -> None:
        """Stop the simulator; calls in flight are cut off."""
        if self._process is not None:
            await self._process.stop(STOP_GRACE)

    async def kill(self) -> None:
        """End the simulator with SIGKILL."""
        if self._process is not None:
            await self._process.kill()

    def _profile(self) -> profile.Profile:
        try:
            return profile.load(self.options.profile) if self.options.profile else profile.default()
        except profile.ProfileError as error:
            raise UsageError(f"{error}. Correct the file named by --profile.") from error

    def _command(self, port: int) -> Command:
        options = self.options
        argv = [sys.executable, "-m", "infra.simulated_llm", "--port", str(port), "--seed", str(options.seed)]
        argv += ["--calls", str(self.calls)]
        if options.profile is not None:
            argv += ["--profile", str(options.profile.absolute())]
        return Command("providers", tuple(argv), options.folder / "providers.log")
