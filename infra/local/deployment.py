"""What runs on a stack: what it needs, how its topics are made, which workers it has.

The stack knows nothing of roles or policies; a ``Deployment`` tells it.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from infra.local.errors import UsageError


@dataclass(frozen=True, slots=True)
class Needs:
    """What the stack has to start: no *models*, no Triton."""

    models: tuple[str, ...] = ()
    repository: Path | None = None
    simulated_providers: bool = True


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the running components are.

    *broker_settings* and *triton_settings* are files with the client's own TLS and SASL
    settings for external components, None for embedded ones. *providers* maps a
    provider's name to its OpenAI-compatible base URL.
    """

    broker: str
    broker_settings: Path | None = None
    triton: str | None = None
    triton_settings: Path | None = None
    triton_metrics: str | None = None
    providers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker process: ``argv`` is completed with ``--http-port-file FILE``.

    It has to write its HTTP port there (whole, by rename) and answer ``GET /readyz`` with
    200 once it consumes.
    """

    role: str
    instance: int
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """What the user asked of a deployment; crosses a process boundary as JSON."""

    folder: Path
    policy: str | None = None
    profile: Path | None = None
    decision_workers: int = 1
    archive: str | None = None


class Deployment(Protocol):
    """What runs on a stack."""

    def needs(self) -> Needs:
        """Return what to start; may raise for a policy that cannot be read."""
        ...

    async def prepare(self, endpoints: Endpoints) -> None:
        """Make the broker match the catalogue; runs after the components, before workers."""
        ...

    def workers(self, endpoints: Endpoints) -> tuple[WorkerSpec, ...]:
        """Return the workers, with argv and environment for *endpoints*."""
        ...


DeploymentFactory = Callable[[DeploymentOptions], Deployment]


@dataclass(frozen=True, slots=True)
class BareDeployment:
    """Components only: no topics, no workers."""

    wanted: Needs = Needs()

    def needs(self) -> Needs:
        """Return what was asked for."""
        return self.wanted

    async def prepare(self, endpoints: Endpoints) -> None:
        """Do nothing."""

    def workers(self, endpoints: Endpoints) -> tuple[WorkerSpec, ...]:
        """Return none."""
        del endpoints
        return ()


def bare(options: DeploymentOptions) -> Deployment:
    """Return a deployment of components only."""
    del options
    return BareDeployment()


def load_factory(name: str) -> DeploymentFactory:
    """Return the factory that *name* (``module:function``) means.

    Raises:
        UsageError: there is no such function.
    """
    module, _, attribute = name.partition(":")
    try:
        return cast("DeploymentFactory", getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"no deployment {name!r}: {error}") from error
