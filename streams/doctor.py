"""Ask each dependency whether it can be used, and say what is wrong and what to do. Changes nothing.

A check yields findings; it never raises for what it was made to find. Secrets are in no finding.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiokafka.errors import KafkaError

from agents.errors import RouterError, StoreFull, Unavailable
from agents.policy import Policy
from schemas.codec import UndecodableError
from schemas.generate import FOLDER as SCHEMAS
from schemas.generate import rendered
from schemas.topics import CONTROL_POLICY
from streams.app import roles_for
from streams.reachability import why_unreachable
from streams.runners import World
from streams.settings import Settings
from streams.topics_admin import administering, plan_topics
from streams.topics_plan import wanted_topics

Grade = Literal["ok", "note", "wrong", "down"]
SKEW_MS = 1000
"""The time rule waits this long for a signal past its deadline: a clock that is further off decides early."""
RECORD_BYTES = 64 * 1024
"""The most that a Request has besides its body."""
LEAST_FREE = 1024**3
_PROBE = b"doctor"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: *grade* note does not count, wrong has to be changed, down has to come back."""

    check: str
    grade: Grade
    detail: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: the settings, the policy that is meant, and the world once the broker answered."""

    settings: Settings
    policy: Policy
    folder: Path
    replication: int = 1
    world: World | None = None
    free: Callable[[Path], int] = field(default=lambda folder: shutil.disk_usage(folder).free)


Check = Callable[[Patient], AsyncIterator[Finding]]


async def broker(patient: Patient) -> AsyncIterator[Finding]:
    """Whether the broker can be used: address, TLS, login."""
    kafka = patient.settings.kafka
    reason = await why_unreachable(kafka.bootstrap, kafka.security)
    how = patient.settings.broker_security.security_protocol
    if reason is None:
        yield Finding("broker", "ok", f"{kafka.bootstrap} answers over {how}")
    else:
        yield Finding("broker", "down", f"{kafka.bootstrap} cannot be used", reason)


async def topics(patient: Patient) -> AsyncIterator[Finding]:
    """Whether the topics are those of the catalogue."""
    settings = patient.settings
    wanted = wanted_topics(
        settings.prefix,
        patient.policy.provider_names,
        partitions=settings.partitions,
        replication=patient.replication,
    )
    plan = await plan_topics(settings.kafka, wanted)
    for change in plan.changes:
        detail = f"{change.topic}: {change.what} is {change.has or '(missing)'}, not {change.wants}"
        yield Finding("topics", "wrong", detail, change.why or "signalbox topics apply")
    if not plan.changes:
        yield Finding("topics", "ok", f"{len(wanted)} topics as the catalogue has them")
    limit = {t.name: int(t.settings["max.message.bytes"]) for t in wanted}
    largest = settings.inline_bytes + RECORD_BYTES
    smallest = min(limit.values())
    if largest > smallest:
        yield Finding(
            "record size",
            "wrong",
            f"a record may have {largest} bytes, and a topic takes {smallest}",
            "lower SIGNALBOX_INLINE_BYTES",
        )
    else:
        yield Finding("record size", "ok", f"records of up to {largest} bytes fit (limit {smallest})")


async def clock(patient: Patient) -> AsyncIterator[Finding]:
    """How far our clock is from the broker's, by the time that the log gives a tombstone of nothing."""
    world = patient.world
    if world is None or not await world.log.partitions(CONTROL_POLICY):
        return
    before = world.now()
    placed = await (await world.log.send((CONTROL_POLICY, 0), _PROBE, None))
    after = world.now()
    # The log's time lies between the two, if the clocks agree.
    skew = placed.timestamp - after if placed.timestamp > after else min(placed.timestamp - before, 0)
    if abs(skew) > SKEW_MS:
        yield Finding(
            "clock",
            "wrong",
            f"the broker's clock is {skew / 1000:+.1f} s from ours; deadlines of signals are by the broker's",
            "synchronise both by NTP",
        )
    else:
        yield Finding("clock", "ok", f"within {max(abs(skew), after - before)} ms of the broker's")


async def groups(patient: Patient) -> AsyncIterator[Finding]:
    """Whether somebody serves each role that the policy needs."""
    settings = patient.settings
    roles = roles_for(patient.policy)
    names = [f"{settings.prefix}.{role}" for role in roles]
    states: dict[str, tuple[str, int]] = {}
    async with administering(settings.kafka, "read the consumer groups") as admin:
        for name in names:
            # One at a time: the library cannot read an answer about several.
            (answer,) = await admin.describe_consumer_groups([name])
            states |= {row[1]: (row[2], len(row[5])) for row in answer.groups}
    idle = [role for role, name in zip(roles, names, strict=True) if states.get(name, ("Dead", 0))[1] == 0]
    for role in idle:
        yield Finding("groups", "note", f"no worker serves {role}", f"signalbox worker {role}")
    if not idle:
        yield Finding("groups", "ok", f"all {len(roles)} roles have workers")


async def schemas(patient: Patient) -> AsyncIterator[Finding]:
    """Whether this version's schemas are those of its lock file, and can read what was written last."""
    stale = [
        name
        for name, text in rendered().items()
        if not (SCHEMAS / name).exists() or (SCHEMAS / name).read_text() != text
    ]
    if stale:
        todo = "this installation is damaged or edited: install it again, or run python -m schemas.generate"
        yield Finding("schemas", "wrong", f"{', '.join(stale)} differ from the record classes", todo)
    world = patient.world
    unknown = [] if world is None else await _unreadable(world)
    for topic in unknown:
        yield Finding(
            "schemas",
            "note",
            f"the last record of {topic} cannot be read by this version",
            "if another version writes there, update this one first; else see `signalbox dlq list`",
        )
    if not stale and not unknown:
        yield Finding("schemas", "ok", "ids are those of the lock file, and read what was written last")


async def _unreadable(world: World) -> list[str]:
    """Return the topics of ours whose last records this version cannot read."""
    ours = [topic for topic in await world.log.topics() if not topic.startswith("inbox.")]
    return [topic for topic in ours if not await _readable(world, topic)]


async def _readable(world: World, topic: str) -> bool:
    tps = [(topic, p) for p in range(await world.log.partitions(topic))]
    ends, begins = await world.log.ends(tps), await world.log.begins(tps)
    start = {tp: end - 1 for tp, end in ends.items() if end > begins[tp]}
    async for envelope in world.log.read(start):
        try:
            if envelope.value is not None:
                world.codec.decode(envelope.value)
        except UndecodableError:
            return False
    return True


async def policy(patient: Patient) -> AsyncIterator[Finding]:
    """Whether a policy is active that this version can load."""
    world = patient.world
    active = world.policies.active if world is not None else None
    if active is None:
        todo = "signalbox up --workers --policy FILE, or submit with --policy"
        yield Finding("policy", "wrong", "no policy is active: the inbox role would wait for one", todo)
    elif world is not None and active not in world.book:
        todo = "update this version, or activate a policy that it knows"
        yield Finding("policy", "wrong", f"the active policy {active[:12]} cannot be loaded here", todo)
    else:
        yield Finding("policy", "ok", f"{active[:12]} is active and loads")


async def claims(patient: Patient) -> AsyncIterator[Finding]:
    """Whether the claim store can be written."""
    store = patient.settings.claim_check().store
    if store is None:
        yield Finding(
            "claims", "note", "no claim store: bodies above 256 KiB are refused", "set SIGNALBOX_CLAIMS"
        )
        return
    try:
        await store.check()
    except StoreFull as error:
        yield Finding("claims", "wrong", str(error), "free some space, or signalbox claims gc")
    except Unavailable as error:
        yield Finding("claims", "down", str(error), "check SIGNALBOX_CLAIMS, its rights and its credentials")
    else:
        yield Finding("claims", "ok", f"{store.name} can be written")


async def disk(patient: Patient) -> AsyncIterator[Finding]:
    """Whether there is room on the disk of the stack's folder, or of this one."""
    folder = patient.folder if patient.folder.is_dir() else Path.cwd()
    try:
        free = await asyncio.to_thread(patient.free, folder)
    except OSError as error:
        yield Finding(
            "disk", "wrong", f"cannot tell the free space of {folder}: {error.strerror}", "check it"
        )
        return
    text = f"{free / 1024**3:.1f} GiB are free at {folder.absolute()}"
    if free < LEAST_FREE:
        yield Finding("disk", "wrong", text, f"free at least {LEAST_FREE // 1024**3} GiB")
    else:
        yield Finding("disk", "ok", text)


LOCAL: Sequence[Check] = (claims, disk)
"""Checks that need no broker."""

OVER_THE_BROKER: Sequence[Check] = (topics, clock, groups, schemas, policy)
"""Checks that ask the broker, once it answers."""


async def examined(patient: Patient, checks: Sequence[Check]) -> list[Finding]:
    """Return what *checks* find, one after the other; a failure of a check is a finding of its own."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += [finding async for finding in check(patient)]
        except Unavailable as error:
            found.append(Finding(check.__name__, "down", str(error), "see the broker's log"))
        except (RouterError, KafkaError) as error:
            found.append(
                Finding(check.__name__, "wrong", f"{type(error).__name__}: {error}", "see the message")
            )
    return found


def summary(found: Sequence[Finding]) -> dict[str, Any]:
    """Return how many findings there are of each grade."""
    return {grade: sum(one.grade == grade for one in found) for grade in ("ok", "note", "wrong", "down")}
