"""The log on Kafka, over aiokafka: one idempotent producer, consumers that never commit by themselves.

Groups share partitions by range and members are static (KIP-345), so that inputs of one role stay
together and a restarted worker takes its own partitions back without a rebalance.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from agents.errors import Unavailable
from schemas.envelope import Envelope
from schemas.topics import LETTER_BYTES, full_name, logical_name
from streams.kafka_consumer import ISOLATION, KafkaConsumer, envelope_of, unavailable
from streams.log import TP, Placed
from streams.reachability import why_unreachable

_MAX_READ = 2000
_READ_POLL_MS = 200
_FOLLOW_POLL_MS = 1000


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach the cluster; *security* is passed to every client (TLS, SASL)."""

    bootstrap: str
    prefix: str = "signalbox"
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    linger_ms: int = 2
    max_request_bytes: int = 8 * 1024 * 1024
    session_timeout_ms: int = 10_000
    compression: str | None = None


class KafkaLog:
    """Topics of one prefix on one cluster."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.prefix = settings.prefix
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._probe: AIOKafkaConsumer | None = None
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    async def start(self) -> None:
        """Connect the producer; raises `Unavailable` saying which address did not answer."""
        # The client retries by itself and raises what matters; its own lines would only alarm people.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        s = self._settings
        self._producer = AIOKafkaProducer(
            bootstrap_servers=s.bootstrap,
            enable_idempotence=True,
            acks="all",
            linger_ms=s.linger_ms,
            max_batch_size=256 * 1024,
            max_request_size=s.max_request_bytes + LETTER_BYTES,  # of dead letters
            compression_type=s.compression,
            **s.security,
        )
        self._probe = AIOKafkaConsumer(bootstrap_servers=s.bootstrap, isolation_level=ISOLATION, **s.security)
        try:
            await self._producer.start()
            await self._probe.start()
        except (KafkaError, OSError) as error:
            await self.stop()
            reason = await why_unreachable(s.bootstrap, s.security) or type(error).__name__
            message = f"no Kafka broker can be used at {s.bootstrap}: {reason}"
            raise Unavailable(message) from error

    async def stop(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
        if self._probe is not None:
            await self._probe.stop()
        self._producer = self._probe = None

    def _full(self, topic: str) -> str:
        name = self._names.get(topic)
        if name is None:
            name = self._names[topic] = full_name(self.prefix, topic)
        return name

    def native(self, tp: TP) -> TopicPartition:
        """Return *tp* as the client library names it."""
        return TopicPartition(self._full(tp[0]), tp[1])

    def logical(self, tp: TopicPartition) -> TP:
        """Return the logical name and partition of a native one."""
        return logical_name(self.prefix, tp.topic), tp.partition

    async def cluster_id(self) -> str:
        """Return the cluster's id."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.bootstrap, **self._settings.security)
        try:
            await admin.start()
            return str((await admin.describe_cluster())["cluster_id"])
        except KafkaError as error:
            raise unavailable("ask the identity of the cluster of", self.prefix, error) from error
        finally:
            await admin.close()

    async def partitions(self, topic: str) -> int:
        """Return how many partitions *topic* has; 0 if it does not exist."""
        if topic not in self._counts:
            full = self._full(topic)
            # Asking for an unknown topic's partitions waits for it to appear, so look first.
            if full not in await self._listed():
                return 0
            try:
                self._counts[topic] = len(await self._connected(self._producer).partitions_for(full))
            except KafkaError as error:
                raise unavailable("ask the partitions of", topic, error) from error
        return self._counts[topic]

    async def topics(self) -> Sequence[str]:
        """Return the logical names of the topics of this prefix, sorted."""
        names = []
        for name in await self._listed():
            try:
                names.append(logical_name(self.prefix, name))
            except ValueError:
                continue
        return sorted(names)

    async def _listed(self) -> Collection[str]:
        """Return the broker's names of its topics; raises `Unavailable`."""
        try:
            found: Collection[str] = await self._connected(self._probe).topics()
        except KafkaError as error:
            raise unavailable("list the topics of", self.prefix, error) from error
        return found

    def _connected(self, client: Any) -> Any:
        if client is None:
            message = "the log is not started"
            raise Unavailable(message)
        return client

    async def send(
        self,
        place: TP,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Awaitable[Placed]:
        """Hand a record to the producer, waiting while its buffer is full."""
        producer = self._connected(self._producer)
        try:
            future = await producer.send(
                self._full(place[0]), value=value, key=key, partition=place[1], headers=list(headers)
            )
        except (KafkaError, AssertionError) as error:
            raise unavailable("produce to", place[0], error) from error
        return _acknowledged(future, place[0])

    def consumer(self, group: str, topics: Sequence[str], instance: str) -> KafkaConsumer:
        """Return a new member of *group*."""
        return KafkaConsumer(self, self._settings, group, topics, instance)

    async def begins(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        """Return the first offset of each partition."""
        return await self._offsets("beginning_offsets", partitions)

    async def ends(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        """Return the end offset of each partition."""
        return await self._offsets("end_offsets", partitions)

    async def _offsets(self, method: str, partitions: Sequence[TP]) -> Mapping[TP, int]:
        if not partitions:
            return {}
        probe = self._connected(self._probe)
        native = [self.native(tp) for tp in partitions]
        try:
            found = await getattr(probe, method)(native)
        except KafkaError as error:
            raise unavailable("ask offsets of", partitions[0][0], error) from error
        return {self.logical(tp): offset for tp, offset in found.items()}

    async def read(self, start: Mapping[TP, int], *, follow: bool = False) -> AsyncIterator[Envelope]:
        """Iterate from *start* to the present ends, or for ever, with a consumer of no group."""
        if not start:
            return
        ends = await self.ends(list(start))
        left = {tp for tp, offset in start.items() if offset < ends[tp]}
        if not left and not follow:
            return
        async with self._reader(start if follow else {tp: start[tp] for tp in left}) as reader:
            while follow or left:
                for envelope in await self._fetched(reader, _FOLLOW_POLL_MS if follow else _READ_POLL_MS):
                    if follow or envelope.offset < ends[envelope.topic, envelope.partition]:
                        yield envelope
                for tp in list(left):
                    if await reader.position(self.native(tp)) >= ends[tp]:
                        left.discard(tp)

    async def _fetched(self, reader: AIOKafkaConsumer, wait_ms: int) -> list[Envelope]:
        """Return what comes within *wait_ms*, as soon as anything does: idle followers wake seldom."""
        found = await reader.getmany(timeout_ms=wait_ms, max_records=_MAX_READ)
        return [envelope_of(self.logical(tp), record) for tp, records in found.items() for record in records]

    @asynccontextmanager
    async def _reader(self, start: Mapping[TP, int]) -> AsyncIterator[AIOKafkaConsumer]:
        reader = AIOKafkaConsumer(
            bootstrap_servers=self._settings.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=ISOLATION,
            max_partition_fetch_bytes=self._settings.max_request_bytes,
            **self._settings.security,
        )
        reader.assign([self.native(tp) for tp in start])
        try:
            await reader.start()
            for tp, offset in start.items():
                reader.seek(self.native(tp), offset)
            yield reader
        except KafkaError as error:
            raise unavailable("read", next(iter(start))[0], error) from error
        finally:
            await reader.stop()


async def _acknowledged(future: Any, topic: str) -> Placed:
    try:
        placed = await future
    except KafkaError as error:
        raise unavailable("produce to", topic, error) from error
    return Placed(placed.offset, placed.timestamp)
