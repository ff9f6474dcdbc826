"""Policies are learnt for as long as the process lives, whatever else lies in `control.policy`."""

from __future__ import annotations

import asyncio

from agents.policy import Policy
from agents.topology import Emit
from schemas.control import PolicyPublished
from schemas.topics import CONTROL_POLICY
from streams.app import load_registries, make_world, topic_counts
from streams.memory import MemoryLog
from streams.policies import publish
from streams.telemetry import Telemetry

YAML = "providers: {models: [{name: m, backend_refs: [{name: p}]}], defaults: {default_model: m}}"


async def test_a_policy_that_cannot_be_read_does_not_end_the_learning_of_others() -> None:
    """After a policy of some later version and bytes that are no record, the next one is still learnt."""
    load_registries()
    log = MemoryLog(topic_counts((), 1), lambda: 0)
    world = make_world(log, Telemetry(lambda: 0, quiet=True), "w")
    await world.policies.start()
    policy = Policy.parse(YAML)

    await (
        await world.outbox.send(Emit(CONTROL_POLICY, 0, b"x", PolicyPublished("x", '{"later": 1}', "a", 0)))
    )
    log.append((CONTROL_POLICY, 0), b"y", b"garbage")
    await publish(world.outbox, policy, "a", 0, activate=True)

    await asyncio.wait_for(world.policies.has(policy.hash), 60)
    assert world.policies.active == policy.hash
    await world.policies.stop()
