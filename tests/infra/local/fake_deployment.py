"""Deployments of fake workers, for stacks under test; named to supervisors as ``module:function``."""

import sys
from dataclasses import dataclass

from infra.local.deployment import Deployment, DeploymentOptions, Endpoints, Needs, WorkerSpec
from tests.infra.local import fake_worker

TWO_WORKERS = "tests.infra.local.fake_deployment:two_workers"
DYING_WORKER = "tests.infra.local.fake_deployment:dying_worker"


def worker_spec(role: str, instance: int, *extra: str) -> WorkerSpec:
    """Return a fake worker's spec."""
    return WorkerSpec(role, instance, (sys.executable, fake_worker.__file__, *extra))


@dataclass(frozen=True, slots=True)
class FakeDeployment:
    """Fake workers, no models; the broker is asked for nothing."""

    specs: tuple[WorkerSpec, ...]

    def needs(self) -> Needs:
        """Return simulated providers and no Triton."""
        return Needs()

    async def prepare(self, endpoints: Endpoints) -> None:
        """Check that the endpoints are there to be used."""
        if not (endpoints.broker and endpoints.providers):
            raise AssertionError(endpoints)

    def workers(self, endpoints: Endpoints) -> tuple[WorkerSpec, ...]:
        """Return the fake workers."""
        del endpoints
        return self.specs


def two_workers(options: DeploymentOptions) -> Deployment:
    """Return a deployment of two workers that become ready."""
    del options
    return FakeDeployment((worker_spec("decision", 0), worker_spec("dispatch", 0)))


def dying_worker(options: DeploymentOptions) -> Deployment:
    """Return a deployment whose only worker dies at once, always."""
    del options
    return FakeDeployment((worker_spec("decision", 0, "--die", "7"),))
