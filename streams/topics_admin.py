"""Make the broker's topics match the catalogue; the only place that creates topics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from agents.errors import ConfigError, Unavailable
from schemas.topics import family, full_name
from streams.app import topic_counts
from streams.kafka import KafkaSettings
from streams.reachability import why_unreachable

_LOOK_AGAIN_S = 0.1
_LOOKS = 600
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
            await _created(await admin.create_topics(missing))
            await _led(admin, [topic.name for topic in missing])
    except TopicAlreadyExistsError:
        return 0  # another process was quicker
    except KafkaError as error:
        reason = await why_unreachable(settings.bootstrap, settings.security) or error
        message = f"cannot create topics at {settings.bootstrap}: {type(error).__name__}: {reason}"
        raise Unavailable(message) from error
    finally:
        await admin.close()
    return len(missing)


async def _created(response: Any) -> None:
    """Raise for a topic that the broker refused to create: the library does not."""
    for name, code, *message in response.topic_errors:
        kind = for_code(code)
        if kind is TopicAlreadyExistsError:
            continue  # another process was quicker
        if code:
            raise kind(f"{name}: {message[0] if message and message[0] else kind.__name__}")


async def _led(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until every partition has a leader: before that, clients fail on what was just created."""
    for _ in range(_LOOKS):
        topics = await admin.describe_topics(names)
        if all(not t["error_code"] and all(p["leader"] >= 0 for p in t["partitions"]) for t in topics):
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
    raise Unavailable(
        f"topics {', '.join(names[:3])}... were created and have no leader; see the broker's log"
    )
