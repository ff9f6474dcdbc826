"""The whole topology in one process over the in-memory log: the quickest way to try a policy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agents.policy import Policy
from streams.app import (
    Context,
    Ports,
    Tuning,
    load_registries,
    make_world,
    roles_for,
    runners_for,
    topic_counts,
)
from streams.claims import ClaimCheck
from streams.host import Fleet, Host
from streams.memory import MemoryLog
from streams.policies import publish
from streams.runners import World
from streams.spill import Spill
from streams.telemetry import Telemetry


@asynccontextmanager
async def single_process(  # noqa: PLR0913 - all but three have defaults
    policy: Policy,
    ports: Ports,
    clock: Callable[[], int],
    *,
    partitions: int = 4,
    tuning: Tuning | None = None,
    failed: Callable[[str, BaseException], None] | None = None,
    claims: ClaimCheck | None = None,
) -> AsyncIterator[World]:
    """Run every role that *policy* needs over an in-memory log; yields the world to submit into."""
    load_registries()
    telemetry = Telemetry(clock, "run", quiet=True)
    if failed is not None:
        telemetry.failed = failed
    counts = topic_counts(policy.provider_names, partitions)
    log = MemoryLog(counts, lambda: clock() // 1000, spill=Spill())
    world = make_world(log, telemetry, "run", claims)
    await publish(world.outbox, policy, "run", world.now(), activate=True)
    await world.policies.start()
    context = Context(await log.cluster_id(), partitions)
    runners = runners_for(roles_for(policy), world, ports, tuning or Tuning(), {}, context)
    hosts = [Host(runner, log, telemetry, f"{runner.group}-0", world.pauses) for runner in runners]
    fleet = Fleet("run", hosts)
    await fleet.start()
    try:
        yield world
    finally:
        await fleet.stop()
        await world.policies.stop()
