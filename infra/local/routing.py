"""The Signalbox deployment of a local stack: which workers run, what they are told, which topics exist."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agents.errors import ConfigError, RouterError
from agents.policy import Policy
from infra.local.deployment import Deployment, DeploymentOptions, Endpoints, Needs, WorkerSpec
from infra.local.errors import StackError, UsageError
from streams.app import load_registries, make_world, roles_for
from streams.kafka import KafkaLog
from streams.policies import publish
from streams.settings import claims_folder, environment, settings, wall_clock
from streams.telemetry import Telemetry
from streams.topics_admin import create_topics
from triton_models.build import default_cache, default_repository

DEFAULT_POLICY = Path(__file__).parent.parent / "policies" / "demo.yaml"
_CLASSIFIERS = {"signals.embedding": "encoder"}


def deployment(options: DeploymentOptions) -> Deployment:
    """Return what runs for *options*; raises `UsageError` for a policy that cannot be used."""
    path = Path(options.policy) if options.policy else DEFAULT_POLICY
    load_registries()
    try:
        policy = Policy.parse(path.read_text(encoding="utf-8"), str(path), environment())
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise UsageError(str(error)) from None
    return Routing(policy, options.decision_workers, options.folder, options.archive)


class Routing:
    """Every role that *policy* needs, one worker each but for the decision role."""

    def __init__(
        self,
        policy: Policy,
        decision_workers: int = 1,
        folder: Path | None = None,
        archive: str | None = None,
    ) -> None:
        self.policy = policy
        self._folder = folder
        self._decision_workers = decision_workers
        self._archive = archive
        self._settings = settings()

    def needs(self) -> Needs:
        """Return the classifiers that the policy's roles call."""
        models = tuple(_CLASSIFIERS[role] for role in roles_for(self.policy) if role in _CLASSIFIERS)
        return Needs(models, default_repository(default_cache()) if models else None)

    async def prepare(self, endpoints: Endpoints) -> None:
        """Create the topics and activate the policy."""
        try:
            kafka = settings(broker=endpoints.broker, broker_settings=endpoints.broker_settings).kafka
            await create_topics(kafka, self.policy.provider_names, partitions=self._settings.partitions)
            log = KafkaLog(kafka)
            await log.start()
            try:
                world = make_world(log, Telemetry(wall_clock, "up", quiet=True), "up")
                await publish(world.outbox, self.policy, "up", world.now(), activate=True)
            finally:
                await log.stop()
        except RouterError as error:
            raise StackError(str(error)) from error

    def workers(self, endpoints: Endpoints) -> tuple[WorkerSpec, ...]:
        """Return the workers."""
        env = {
            "SIGNALBOX_BROKER": endpoints.broker,
            "SIGNALBOX_TRITON": endpoints.triton or "",
            "SIGNALBOX_PROVIDERS": json.dumps(dict(endpoints.providers)),
        }
        # The files, never what is in them: an environment can be read by others of the same user.
        files = {"BROKER_SETTINGS": endpoints.broker_settings, "TRITON_SETTINGS": endpoints.triton_settings}
        env |= {f"SIGNALBOX_{name}": str(path) for name, path in files.items() if path is not None}
        if self._folder is not None and not self._settings.claims:
            env["SIGNALBOX_CLAIMS"] = str(claims_folder(self._folder))
        specs = []
        for role in roles_for(self.policy):
            for instance in range(self._decision_workers if role == "decision" else 1):
                argv = (sys.executable, "-m", "signalbox", "worker", role, "--instance", str(instance))
                specs.append(WorkerSpec(role, instance, argv, env))
        if self._archive:
            argv = (sys.executable, "-m", "signalbox", "worker", "archive", "--archive", self._archive)
            specs.append(WorkerSpec("archive", 0, argv, env))
        return tuple(specs)
