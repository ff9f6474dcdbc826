"""Make the broker's topics match the catalogue; the only place that creates or changes topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from agents.errors import ConfigError, Unavailable
from streams.kafka import KafkaSettings
from streams.reachability import why_unreachable
from streams.topics_plan import Plan, Wanted, alter, create, describe, difference, wanted_topics

_LOOK_AGAIN_S = 0.1
_LOOKS = 600


@asynccontextmanager
async def administering(settings: KafkaSettings, doing: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client; raises `Unavailable` saying that *doing* did not work, and why."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap, **settings.security)
    try:
        await admin.start()
        yield admin
    except KafkaError as error:
        reason = await why_unreachable(settings.bootstrap, settings.security) or error
        message = f"cannot {doing} at {settings.bootstrap}: {type(error).__name__}: {reason}"
        raise Unavailable(message) from error
    finally:
        await admin.close()


async def create_topics(
    settings: KafkaSettings, providers: Iterable[str], *, partitions: int, replication: int = 1
) -> int:
    """Create what is missing and return how many topics that were.

    Raises `Unavailable` if the broker does not answer, `ConfigError` if a topic exists with
    another number of partitions: positions would no longer line up.
    """
    wanted = wanted_topics(settings.prefix, providers, partitions=partitions, replication=replication)
    async with administering(settings, "create topics") as admin:
        existing = {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics()}
        for topic in wanted:
            if existing.get(topic.name, topic.partitions) != topic.partitions:
                raise ConfigError(
                    f"topic {topic.name} has {existing[topic.name]} partitions, not {topic.partitions}: "
                    "partition counts never change within a major version; use another prefix or start "
                    "with empty data"
                )
        return await _create(admin, [topic for topic in wanted if topic.name not in existing])


async def plan_topics(settings: KafkaSettings, wanted: Sequence[Wanted], *, shorten: bool = False) -> Plan:
    """Return how the broker's topics differ from *wanted*; raises `Unavailable`."""
    async with administering(settings, "read the topics") as admin:
        return difference(wanted, await describe(admin), settings.prefix, shorten=shorten)


async def apply_topics(settings: KafkaSettings, wanted: Sequence[Wanted], *, shorten: bool = False) -> Plan:
    """Create and change what may be; return what was different. Raises `Unavailable`."""
    async with administering(settings, "change the topics") as admin:
        existing = await describe(admin)
        plan = difference(wanted, existing, settings.prefix, shorten=shorten)
        await _create(admin, [topic for topic in wanted if topic.name not in existing])
        await alter(admin, plan, existing)
        return plan


async def _create(admin: AIOKafkaAdminClient, missing: Sequence[Wanted]) -> int:
    if missing:
        _raise_refused(await create(admin, missing))
        await _led(admin, [topic.name for topic in missing])
    return len(missing)


def _raise_refused(response: Any) -> None:
    """Raise for a topic that the broker refused to create: the library does not."""
    for name, code, *message in response.topic_errors:
        kind = for_code(code)
        if code and kind is not TopicAlreadyExistsError:  # another process may have been quicker
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
