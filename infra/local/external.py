"""Components that others run: their settings are handed on, and only their health is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.errors import ConfigError
from infra.local.broker import broker_answers
from infra.local.errors import StackError, UsageError
from infra.local.process import Process
from streams.reachability import why_unreachable
from streams.security import read_values
from streams.settings import settings


@dataclass(frozen=True, slots=True)
class External:
    """An address and, where it takes TLS or SASL, the file with the client's settings."""

    address: str
    settings: Path | None = None

    def read(self) -> Mapping[str, str]:
        """Return the settings, {} without a file.

        Raises:
            UsageError: the file is missing or not a flat YAML or JSON object.
        """
        try:
            values = {} if self.settings is None else read_values(self.settings)
        except ConfigError as error:
            raise UsageError(str(error)) from error
        return {key: str(value) for key, value in values.items()}

    def client_arguments(self) -> Mapping[str, Any]:
        """Return the arguments of a Kafka client: the file's, and what the environment adds.

        Raises:
            UsageError: they cannot be used together, or name a file that cannot be read.
        """
        try:
            return settings(broker_settings=self.settings).broker_security.arguments()
        except ConfigError as error:
            raise UsageError(str(error)) from error


class ExternalBroker:
    """A Kafka that others run."""

    name = "kafka"

    def __init__(self, external: External) -> None:
        self.external = external

    @property
    def address(self) -> str:
        """Its bootstrap servers."""
        return self.external.address

    @property
    def process(self) -> Process | None:
        """None: it is not ours."""
        return None

    async def start(self) -> str:
        """Check that it answers; returns the address.

        Raises:
            StackError: it does not answer.
        """
        reason = await why_unreachable(self.address, self.external.client_arguments())
        if reason is not None:
            given = self.external.settings or "none given: --broker-settings FILE"
            raise StackError(f"the broker {self.address} cannot be used: {reason} (its settings: {given})")
        return self.address

    async def health(self) -> bool:
        """Return whether it answers a metadata request."""
        return await broker_answers(self.address, self.external.client_arguments())

    async def stop(self) -> None:
        """Do nothing: it is not ours."""


class ExternalTriton:
    """A Triton server that others run; its address is that of gRPC.

    Settings: ``ssl`` (true), ``root_certificates``, ``private_key``, ``certificate_chain`` (files).
    """

    name = "triton"

    def __init__(self, external: External, models: tuple[str, ...] = ()) -> None:
        self.external = external
        self.models = models

    @property
    def address(self) -> str:
        """``host:port`` of gRPC."""
        return self.external.address

    @property
    def process(self) -> Process | None:
        """None: it is not ours."""
        return None

    async def start(self) -> str:
        """Check that it and its models are ready; returns the address.

        Raises:
            StackError: it, or a model, is not ready.
        """
        if not await self.health():
            raise StackError(
                f"the external Triton {self.address} is not ready with the models "
                f"{', '.join(self.models) or '(any)'}: check address, network, TLS settings "
                "(--triton-settings FILE) and its "
                "model repository"
            )
        return self.address

    async def health(self) -> bool:
        """Return whether it and every named model is ready."""
        # Half a second to import, which only external servers need.
        from tritonclient.grpc import aio as triton_grpc  # noqa: PLC0415
        from tritonclient.utils import InferenceServerException  # noqa: PLC0415

        settings = self.external.read()
        files = {
            key: settings[key]
            for key in ("root_certificates", "private_key", "certificate_chain")
            if key in settings
        }
        encrypted = settings.get("ssl", "false").lower() == "true"
        client = triton_grpc.InferenceServerClient(self.address, ssl=encrypted, **files)
        try:
            if not await client.is_server_ready(client_timeout=5.0):
                return False
            for model in self.models:
                if not await client.is_model_ready(model, client_timeout=5.0):
                    return False
        except (InferenceServerException, OSError):
            return False
        finally:
            await client.close()
        return True

    async def stop(self) -> None:
        """Do nothing: it is not ours."""
