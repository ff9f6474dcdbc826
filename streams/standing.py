"""How far each group is, as the broker tells it: what waits, since when, what is paused, what is buried."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.control import Paused
from schemas.topics import DEAD_LETTERS, jobs_topic
from streams.app import Context, Ports, Tuning, roles_for, runner_for
from streams.log import TP
from streams.runners import World

_MOST_READ = 2000


async def _nobody(*_: Any) -> Any:
    raise NotImplementedError("a runner that is only asked what it reads calls nobody")


_CALLEE: Any = _nobody
_NOBODY = Ports(_CALLEE, _CALLEE)


@dataclass(frozen=True, slots=True)
class GroupLag:
    """One role's group: how many records it has not committed, and since when (ms) the oldest waits."""

    role: str
    lag: int
    waiting_since: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the broker knows of a deployment at *at* (ms).

    `longest_call_s` is how long a job may be with its provider by the active policy, 0 without one.
    """

    at: int
    groups: tuple[GroupLag, ...]
    pauses: tuple[Paused, ...]
    dead_letters: int
    policy_active: bool
    longest_call_s: float = 0.0


def roles_in(topics: Iterable[str]) -> list[str]:
    """Return the roles that *topics* (logical names) are there for."""
    names = sorted(topics)
    first, last = jobs_topic("\0").split("\0")
    roles = ["admission", *(name for name in names if name.startswith("signals.")), "decision", "dispatch"]
    if any(name.startswith("retry.") for name in names):
        roles.append("retry")
    served = (n for n in names if n.startswith(first) and n.endswith(last))
    return [*roles, *(f"provider.{n[len(first) : -len(last)]}" for n in served)]


async def take(world: World) -> Standing:
    """Ask the broker; raises `Unavailable`."""
    groups = await asyncio.gather(*(_group(world, role) for role in roles_in(await world.log.topics())))
    letters = await _places(world, [DEAD_LETTERS])
    begins, ends = await world.log.begins(letters), await world.log.ends(letters)
    return Standing(
        world.now(),
        tuple(group for group in groups if group is not None),
        tuple(world.pauses.held.values()),
        sum(ends[tp] - begins[tp] for tp in letters),
        world.policies.active is not None,
        _longest_call_s(world),
    )


def _longest_call_s(world: World) -> float:
    """Return how long a model may be called for one job before that counts as failed."""
    active = world.policies.active
    if active is None:
        return 0.0
    deadlines = world.book[active].deadlines
    return deadlines.call_s * deadlines.attempts


async def _group(world: World, role: str) -> GroupLag | None:
    try:
        runner = runner_for(role, world, _NOBODY, Tuning(), {}, Context("", 1))
    except ValueError:
        return None  # a topic of a role that this version does not have
    tps = await _places(world, runner.topics)
    member = world.log.consumer(f"{world.log.prefix}.{role}", runner.topics, "status")
    committed = await member.committed(tps)
    await member.stop()
    if not committed and role not in _demanded(world):
        return None  # topics of every signal role exist; nobody need serve those that no policy demands
    begins, ends = await world.log.begins(tps), await world.log.ends(tps)
    resume = {tp: max(committed[tp].offset if tp in committed else 0, begins[tp]) for tp in tps}
    behind = {tp: offset for tp, offset in resume.items() if offset < ends[tp]}
    lag = sum(ends[tp] - offset for tp, offset in behind.items())
    return GroupLag(role, lag, await _oldest(world, behind))


def _demanded(world: World) -> tuple[str, ...]:
    active = world.policies.active
    return (*roles_for(world.book[active]), "retry") if active is not None else ()


async def _places(world: World, topics: Sequence[str]) -> list[TP]:
    return [(topic, p) for topic in topics for p in range(await world.log.partitions(topic))]


async def _oldest(world: World, behind: Mapping[TP, int]) -> int | None:
    """Return the log's time (ms) of the oldest record at *behind*, of those that are read soon."""
    first: dict[TP, int] = {}
    count = 0
    async for envelope in world.log.read(behind):
        first.setdefault((envelope.topic, envelope.partition), envelope.timestamp)
        count += 1
        if len(first) == len(behind) or count >= _MOST_READ:
            break
    return min(first.values(), default=None)
