"""What the broker's topics are, against what the catalogue says: the difference, and how it is undone.

Nothing is ever taken away: partition counts stay, topics stay, and no retention gets shorter unless told so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from schemas.topics import family, full_name
from streams.app import topic_counts

_DAY_MS = 24 * 3600 * 1000
_RETENTION_MS = {"body": 30 * _DAY_MS, "decision": 400 * _DAY_MS, "forever": -1}
_OF_THE_TOPIC = 1
"""Kafka's code for a setting that a topic has of its own."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as the catalogue wants it; *name* is that on the broker."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Existing:
    """A topic as the broker has it; *own* are the settings that it does not share with others."""

    partitions: int
    replication: int
    settings: Mapping[str, str]
    own: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. *why* says why `apply` refuses it; "" if it does not."""

    topic: str
    what: str
    has: str
    wants: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All differences; *others* are topics of the prefix that are not of this catalogue and policy."""

    changes: tuple[Change, ...]
    others: tuple[str, ...]

    @property
    def refused(self) -> tuple[Change, ...]:
        """Return what `apply` will not do."""
        return tuple(change for change in self.changes if change.why)


def topic_settings(name: str, replication: int = 1) -> Mapping[str, str]:
    """Return the broker's settings for logical topic *name*, from its catalogue entry."""
    topic = family(name)
    return {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(_RETENTION_MS[topic.retention]),
        "max.message.bytes": str(topic.max_bytes),
        "min.insync.replicas": str(max(1, replication - 1)),
        "cleanup.policy": "compact" if topic.compacted else "delete",
    }


def wanted_topics(
    prefix: str, providers: Iterable[str], *, partitions: int, replication: int = 1
) -> Sequence[Wanted]:
    """Return every topic that *providers* and the catalogue need."""
    return [
        Wanted(full_name(prefix, name), count, replication, topic_settings(name, replication))
        for name, count in topic_counts(providers, partitions).items()
    ]


def difference(
    wanted: Sequence[Wanted], existing: Mapping[str, Existing], prefix: str, *, shorten: bool = False
) -> Plan:
    """Return what would have to change; *shorten* allows retention to get shorter."""
    changes: list[Change] = []
    for topic in wanted:
        found = existing.get(topic.name)
        if found is None:
            changes.append(Change(topic.name, "create", "", f"{topic.partitions} partitions"))
            continue
        changes += _structure(topic, found)
        changes += [
            Change(
                topic.name, key, found.settings.get(key, ""), value, _lost(key, found, value, shorten=shorten)
            )
            for key, value in topic.settings.items()
            if found.settings.get(key) != value
        ]
    names = {topic.name for topic in wanted}
    others = sorted(name for name in existing if name.startswith(f"{prefix}.") and name not in names)
    return Plan(tuple(changes), tuple(others))


def _structure(topic: Wanted, found: Existing) -> list[Change]:
    changes = []
    if found.partitions != topic.partitions:
        why = (
            "partition counts never change within a major version, since positions would no longer line up: "
            "set SIGNALBOX_PARTITIONS to what the broker has, or use another prefix"
        )
        changes.append(Change(topic.name, "partitions", str(found.partitions), str(topic.partitions), why))
    if found.replication != topic.replication:
        why = "replicas are moved by kafka-reassign-partitions, which needs to know where to"
        changes.append(Change(topic.name, "replication", str(found.replication), str(topic.replication), why))
    return changes


def _lost(key: str, found: Existing, value: str, *, shorten: bool) -> str:
    """Say why a change would lose records, "" if it would not."""
    has = int(found.settings.get(key) or -1) if key == "retention.ms" else 0
    shorter = key == "retention.ms" and int(value) >= 0 and (has < 0 or int(value) < has)
    if shorter and not shorten:
        return "a shorter retention deletes records; pass --shorten if that is meant"
    if key == "cleanup.policy" and value == "compact":
        return "compaction deletes all but the last record of each key; empty the topic or use another prefix"
    return ""


async def describe(admin: AIOKafkaAdminClient, names: Sequence[str] | None = None) -> Mapping[str, Existing]:
    """Return the topics on the broker, those of *names* if given, with their settings."""
    topics = {t["topic"]: t for t in await admin.describe_topics() if names is None or t["topic"] in names}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    settings: dict[str, dict[str, str]] = {}
    own: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources) if resources else []:
        for code, message, _kind, name, entries in answer.resources:
            if code:
                raise for_code(code)(f"{name}: {message or for_code(code).__name__}")
            settings[name] = {entry[0]: entry[1] or "" for entry in entries}
            own[name] = {entry[0]: entry[1] or "" for entry in entries if entry[3] == _OF_THE_TOPIC}
    return {
        name: Existing(
            len(topic["partitions"]),
            min((len(p["replicas"]) for p in topic["partitions"]), default=0),
            settings.get(name, {}),
            own.get(name, {}),
        )
        for name, topic in topics.items()
    }


async def create(admin: AIOKafkaAdminClient, topics: Sequence[Wanted]) -> Any:
    """Ask the broker to create *topics*; returns its answer, whose errors are codes."""
    return await admin.create_topics(
        [NewTopic(t.name, t.partitions, t.replication, topic_configs=dict(t.settings)) for t in topics]
    )


async def alter(admin: AIOKafkaAdminClient, plan: Plan, existing: Mapping[str, Existing]) -> int:
    """Set what *plan* changes and does not refuse; return the number of topics.

    What a topic has of its own besides is kept: the request replaces all of it.
    """
    settings: dict[str, dict[str, str]] = {}
    for change in plan.changes:
        if change.what == "create" or change.why:
            continue
        settings.setdefault(change.topic, dict(existing[change.topic].own))[change.what] = change.wants
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, values) for name, values in settings.items()]
    for answer in await admin.alter_configs(resources) if resources else []:
        for code, message, _kind, name in answer.resources:
            if code:
                raise for_code(code)(f"{name}: {message or for_code(code).__name__}")
    return len(settings)
