"""Activate, roll back and shadow policies: one record each, said to be done only once it has come back."""

from __future__ import annotations

from dataclasses import dataclass

from agents.errors import ConfigError, RouterError
from agents.policy import Policy
from agents.policy_life import ROLLED_BACK
from schemas.control import PolicyActivated, PolicyPublished, PolicyShadowed
from schemas.topics import SHADOW_DECISIONS
from streams.batch import check_served
from streams.policies import Told, tell
from streams.runners import World

_PATIENCE_S = 30.0


class NotDone(RouterError):
    """The order changed nothing, and what it asks for is not so either."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks for the change and on what grounds; see `schemas.control.PolicyActivated`."""

    actor: str
    reason: str = ""
    signature: str = ""
    replay_report: str = ""


async def activate(world: World, policy: Policy, order: Order) -> bool:
    """Make *policy* what requests are stamped with; False if it was so already.

    Raises `ConfigError` if a topic that it needs is missing, `NotDone` if somebody else was faster,
    `Unavailable` if the log did not give the record back.
    """
    await check_served(world, policy)
    life = world.policies.life
    if life.active == policy.hash:
        return False
    await _published(world, policy, order)
    record = PolicyActivated(
        policy.hash,
        order.actor,
        order.reason,
        world.now(),
        replaces=life.active or "",
        signature=order.signature,
        replay_report=order.replay_report,
    )
    await _told(world, record)
    if life.active != policy.hash:
        raise NotDone(f"{_other(world)} was activated right after; `signalbox policy status` tells by whom")
    return True


async def rollback(world: World, order: Order, undo: str = "") -> bool:
    """Make active what was active before; with *undo* only if that policy is active, else False.

    Raises `NotDone` if there is nothing to return to or somebody else was faster, and else as `activate`.
    """
    life = world.policies.life
    if undo and life.active != undo:
        return False
    if life.active is None or life.before is None:
        raise NotDone("no other policy was active before, as far as the log tells; activate one by its file")
    await check_served(world, world.book[life.before])
    record = PolicyActivated(
        life.before,
        order.actor,
        order.reason,
        world.now(),
        ROLLED_BACK,
        life.active,
        order.signature,
        order.replay_report,
    )
    await _told(world, record)
    if life.standing != record:
        raise NotDone(f"{_other(world)} became active meanwhile; `signalbox policy status` tells by whom")
    return True


async def shadow(world: World, policy: Policy | None, order: Order) -> bool:
    """Let *policy* decide in shadow, or nothing; False if it was so already. Raises as `activate` does."""
    if policy is not None and await world.log.partitions(SHADOW_DECISIONS) == 0:
        raise ConfigError(
            f"topic {SHADOW_DECISIONS!r} does not exist, so nothing could be written; "
            "create what is missing with `signalbox up`, or `signalbox topics plan` for another broker"
        )
    wanted = policy.hash if policy is not None else ""
    if _shadow_of(world) == wanted:
        return False
    if policy is not None:
        await _published(world, policy, order)
    record = PolicyShadowed(
        wanted, order.actor, order.reason, world.now(), order.signature, order.replay_report
    )
    await _told(world, record)
    if _shadow_of(world) != wanted:
        raise NotDone("another shadow was ordered right after; `signalbox policy status` tells by whom")
    return True


def find_policy(world: World, name: str) -> Policy:
    """Return the policy whose hash begins with *name*; raises `ConfigError` unless it is exactly one."""
    found = [policy for policy in world.book if policy.hash.startswith(name.lower())]
    if len(found) != 1:
        known = ", ".join(sorted(policy.hash[:12] for policy in world.book)) or "none"
        told = "is no file, and several policies have" if found else "is neither a file nor"
        raise ConfigError(f"{name!r} {told} the beginning of a hash in the log; known are: {known}")
    return found[0]


def _shadow_of(world: World) -> str:
    found = world.policies.life.shadow
    return found.policy_hash if found is not None else ""


def _other(world: World) -> str:
    return f"policy {(world.policies.active or '(none)')[:12]}"


async def _published(world: World, policy: Policy, order: Order) -> None:
    if policy.hash not in world.book:
        await _told(world, PolicyPublished(policy.hash, policy.normal_form, order.actor, world.now()))


async def _told(world: World, record: Told) -> None:
    placed = await tell(world.outbox, record)
    await world.policies.has_read(placed.offset, _PATIENCE_S)
