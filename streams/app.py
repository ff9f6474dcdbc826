"""The composition root: what a role needs, put together from the topology and the ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import agents.providers
import agents.selectors
import agents.signals
from agents.admission import Admission
from agents.policy import Policy
from agents.ports import Complete, Infer
from agents.providers import ProviderConfig, provider
from agents.retry import DELAYS, retry_stage
from agents.selectors import selector
from agents.signals import Classified, signal
from agents.topology import (
    WINDOW,
    admission_stage,
    decision_stage,
    dispatch_stage,
    signal_stage,
    work_stage,
)
from schemas.codec import Codec
from schemas.topics import (
    CATALOGUE,
    COMPLETIONS,
    CONTROL_EVENTS,
    CONTROL_POLICY,
    DECISIONS,
    FEEDBACK,
    REQUESTS,
    RESULTS,
    attempts_topic,
    inbox_topic,
    jobs_topic,
    signals_topic,
)
from streams.claims import ClaimCheck
from streams.letters import DeadLetters, LetterLimits
from streams.log import Log
from streams.outbox import Outbox
from streams.pauses import Pauses
from streams.policies import Policies
from streams.runners import Runner, World
from streams.runners.archiving import Archive, ArchiveLimits, ArchiveRunner
from streams.runners.joining import JoinRunner
from streams.runners.mapping import MapRunner
from streams.runners.waiting import RetryRunner
from streams.runners.working import WorkLimits, WorkRunner
from streams.telemetry import Telemetry

INBOX = "json"


def load_registries() -> None:
    """Import every signal, selector and provider dialect; loading twice does nothing."""
    signal.load(agents.signals)
    selector.load(agents.selectors)
    provider.load(agents.providers)


def signal_roles() -> tuple[str, ...]:
    """Return every signal role that exists, sorted; the roles' topics exist whatever a policy demands."""
    return tuple(sorted({cls.role for _, cls in signal}))


def roles_for(policy: Policy) -> tuple[str, ...]:
    """Return the roles that serve *policy*, in the order that records pass them."""
    signals = [f"signals.{role}" for role in policy.roles]
    workers = [f"provider.{name}" for name in policy.provider_names]
    return ("admission", *signals, "decision", "dispatch", *workers, "retry")


def topic_counts(providers: Iterable[str], partitions: int) -> Mapping[str, int]:
    """Return logical name -> partitions of every topic that *providers* and the catalogue need."""
    names = list(providers)
    members = {
        "inbox.<source>": [inbox_topic(INBOX)],
        "signals.<role>": [signals_topic(role) for role in signal_roles()],
        "jobs.<provider>.<class>": [jobs_topic(name) for name in names],
        "attempts.<provider>": [attempts_topic(name) for name in names],
        "retry.<delay>": list(DELAYS),
    }
    return {
        name: 1 if topic.partitions == "one" else partitions
        for topic in CATALOGUE
        for name in members.get(topic.name, [topic.name])
    }


def archived_topics() -> tuple[str, ...]:
    """Return the topics whose records are archived."""
    own = (REQUESTS, DECISIONS, COMPLETIONS, RESULTS, FEEDBACK, CONTROL_POLICY)
    return (*own, *(signals_topic(role) for role in signal_roles()))


@dataclass(frozen=True, slots=True)
class Ports:
    """The outside services that roles may call."""

    infer: Infer
    complete: Complete
    archive: Archive | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """Bounds that a user may set; see docs/operations.md."""

    window: int = WINDOW
    work: WorkLimits = field(default_factory=WorkLimits)
    regions: Mapping[str, str] = field(default_factory=dict)
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)


def make_world(  # noqa: PLR0913 - what the composition root composes
    log: Log,
    telemetry: Telemetry,
    worker: str,
    claims: ClaimCheck | None = None,
    limits: LetterLimits | None = None,
    *,
    compiled: bool = True,
) -> World:
    """Return what runners need, around *log*; without *claims* large bodies are refused.

    *compiled* chooses the codec written out per record, else fastavro: the bytes are the same.
    """
    codec = Codec(compiled=compiled, largest=(limits or LetterLimits()).record_bytes)
    outbox = Outbox(log, codec, worker)
    outbox.sent = telemetry.sent
    pauses = Pauses(codec)
    letters = DeadLetters(outbox, pauses, telemetry, limits or LetterLimits())
    policies = Policies(log, codec, {CONTROL_EVENTS: pauses.take})
    return World(log, codec, outbox, policies, pauses, telemetry, worker, letters, claims or ClaimCheck())


def runner_for(  # noqa: PLR0911, PLR0913 - what the composition root composes, a role at a time
    role: str,
    world: World,
    ports: Ports,
    tuning: Tuning,
    dialects: Mapping[str, ProviderConfig],
    context: Context,
) -> Runner:
    """Return the runner of *role*; raises ValueError for a role that does not exist."""
    kind, _, name = role.partition(".")
    clock = world.telemetry.clock
    if kind == "signals" and name in signal_roles():
        classified = any(cls.role == name and issubclass(cls, Classified) for _, cls in signal)
        return MapRunner(signal_stage(name, world.book, ports.infer, clock, classified=classified), world)
    if kind == "provider" and name:
        dialect = dialects.get(name, provider["openai"]())
        limits = replace(tuning.work, region=tuning.regions.get(name, ""))
        return WorkRunner(work_stage(name), world, ports.complete, dialect, limits)
    if role == "decision":
        shadow, shares = world.policies.in_shadow, context.partitions
        stage = decision_stage(signal_roles(), world.book, tuning.window, shadow, partitions=shares)
        return JoinRunner(stage, world)
    if role == "dispatch":
        return JoinRunner(dispatch_stage(tuning.window), world)
    if role == "retry":
        return RetryRunner(retry_stage(), world)
    if role == "archive" and ports.archive is not None:
        return ArchiveRunner(ports.archive, archived_topics(), world, tuning.archive)
    if role == "admission":
        return MapRunner(
            admission_stage(
                INBOX,
                context.admission(world),
                context.cluster,
                context.partitions,
                world.claims.check_in_when_there_is_room,
            ),
            world,
        )
    known = [
        "admission",
        "decision",
        "dispatch",
        "retry",
        "archive",
        *(f"signals.{r}" for r in signal_roles()),
        "provider.<name>",
    ]
    message = f"no role {role!r}; roles are: {', '.join(known)}"
    raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Context:
    """Where a worker runs: the cluster's identity, how many partitions, and whose inbox it admits."""

    cluster: str
    partitions: int
    tenant: str = "default"

    def admission(self, world: World) -> Callable[[], Admission]:
        """Return a function that gives the admission under the active policy; raises `PolicyMissing`."""

        def current() -> Admission:
            policy = world.book[world.policies.active or "(none active)"]
            return Admission(policy, self.tenant, world.now())

        return current


def runners_for(  # noqa: PLR0913 - as above
    roles: Sequence[str],
    world: World,
    ports: Ports,
    tuning: Tuning,
    dialects: Mapping[str, ProviderConfig],
    context: Context,
) -> list[Runner]:
    """Return one runner per role."""
    return [runner_for(role, world, ports, tuning, dialects, context) for role in roles]
