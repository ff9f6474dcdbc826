"""Make the broker's topics match the catalogue; the only place that creates topics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from agents.errors import ConfigError, Unavailable
from schemas.topics import family, full_name
from streams.app import topic_counts
from streams.kafka import KafkaSettings

_LOOK_AGAIN_S = 0.1
_DAY_MS = 24 * 3600 * 1000
_RETENTION_MS = {"body": 30 * _DAY_MS, "decision": 400 * _DAY_MS, "forever": -1}


def topic_settings(name: str) -> Mapping[str, str]:
    """Return the broker's settings for logical topic *name*, from its catalogue entry."""
    topic = family(name)
    settings = {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(_RETENTION_MS[topic.retention]),
        "max.message.bytes": str(topic.max_bytes),
    }
    if topic.compacted:
        settings["cleanup.policy"] = "compact"
    return settings


async def create_topics(
    settings: KafkaSettings, providers: Iterable[str], *, partitions: int, replication: int = 1
) -> int:
    """Create what is missing and return how many topics that were.

    Raises `Unavailable` if the broker does not answer, `ConfigError` if a topic exists with
    another number of partitions: positions would no longer line up.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap, **settings.security)
    try:
        await admin.start()
        existing = {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics()}
        wanted = topic_counts(providers, partitions)
        missing = []
        for name, count in wanted.items():
            full = full_name(settings.prefix, name)
            if existing.get(full, count) != count:
                raise ConfigError(
                    f"topic {full} has {existing[full]} partitions, not {count}: partition counts never "
                    "change within a major version; use another prefix or start with empty data"
                )
            if full not in existing:
                missing.append(NewTopic(full, count, replication, topic_configs=dict(topic_settings(name))))
        if missing:
            await admin.create_topics(missing)
            await _led(admin, [topic.name for topic in missing])
    except TopicAlreadyExistsError:
        return 0  # another process was quicker
    except KafkaError as error:
        message = f"cannot create topics at {settings.bootstrap}: {type(error).__name__}: {error}"
        raise Unavailable(message) from error
    finally:
        await admin.close()
    return len(missing)


async def _led(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until every partition has a leader: before that, clients fail on what was just created."""
    while True:
        topics = await admin.describe_topics(names)
        if all(not t["error_code"] and all(p["leader"] >= 0 for p in t["partitions"]) for t in topics):
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
