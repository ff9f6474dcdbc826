"""A member of a consumer group on Kafka; never commits by itself.

Groups share partitions by range and members are static (KIP-345), so that inputs of one role stay
together and a restarted worker takes its own partitions back without a rebalance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from agents.errors import Fenced, Unavailable
from schemas.envelope import Envelope
from schemas.topics import full_name
from streams.log import TP, Commit, Listener, fenced

if TYPE_CHECKING:
    from streams.kafka import KafkaLog, KafkaSettings

_MAX_POLL = 500
_UUID = 36
ISOLATION = "read_committed"
"""We write no transactions, but users' producers may: what they aborted must not be admitted."""


def envelope_of(tp: TP, record: Any) -> Envelope:
    """Return a fetched *record* of *tp* as ours."""
    return Envelope(
        tp[0], tp[1], record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
    )


def unavailable(what: str, topic: str, error: BaseException) -> Unavailable:
    """Return the error that says *what* cannot be done with *topic*, and why."""
    return Unavailable(f"cannot {what} {topic}: {type(error).__name__}: {str(error)[:200]}")


class KafkaConsumer:
    """A static member of a group; see `streams.log.Consumer`."""

    def __init__(
        self, log: KafkaLog, settings: KafkaSettings, group: str, topics: Sequence[str], instance: str
    ) -> None:
        self._log = log
        self._settings = settings
        self._group = group
        self._instance = instance
        self._fenced: Fenced | None = None
        self._stopping = False
        self._member = ""
        self._reached: Mapping[TP, int] = {}
        self._topics = [full_name(settings.prefix, topic) for topic in topics]
        self._sought: Mapping[TP, int] = {}
        self._seeks = 0
        self._taken_over = asyncio.Event()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap,
            client_id=instance,
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=ISOLATION,
            partition_assignment_strategy=[RangePartitionAssignor],
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=min(3000, settings.session_timeout_ms // 3),
            rebalance_timeout_ms=30_000,
            max_partition_fetch_bytes=settings.max_request_bytes,
            fetch_max_wait_ms=100,
            **settings.security,
        )

    async def start(self, on_assigned: Listener, on_revoked: Listener) -> None:
        """Join the group; raises `Unavailable`."""
        self._consumer.subscribe(self._topics, listener=_Rebalance(self._log, self, on_assigned, on_revoked))
        try:
            await self._consumer.start()
        except (KafkaError, OSError) as error:
            raise unavailable("join with", self._group, error) from error

    def let_go(self) -> None:
        """Note that an assignment ended: what was fetched under it must not be given out."""
        self._taken_over.clear()

    def take_over(self) -> None:
        """Note that the listener has taken the new assignment over."""
        self._member = self._consumer._coordinator.member_id  # noqa: SLF001
        self._taken_over.set()

    async def poll(self, timeout_s: float) -> Mapping[TP, Sequence[Envelope]]:
        """Return fetched records by partition; raises `Unavailable` when this member was fenced."""
        seeks = self._seeks
        try:
            found = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=_MAX_POLL)
        except KafkaError as error:
            raise unavailable("consume with", self._group, error) from error
        # The client fetches for a new assignment while its listener still runs; and until it has the new
        # one it holds on to the old one, whose positions must not pass for the new one's.
        assignment = self._assignment()
        reached = self._positions(assignment)
        await self._taken_over.wait()
        if self._fenced is not None:
            raise self._fenced
        current = assignment is self._assignment()
        if current and seeks != self._seeks:
            # What was fetched may be of before the listener said where to read from: read that again.
            self._seek()
            found = {tp: rows for tp, rows in found.items() if self._log.logical(tp) not in self._sought}
            reached |= self._sought
        self._reached = reached if current else {}
        if not current:
            return {}
        out: dict[TP, list[Envelope]] = {}
        for native, records in found.items():
            tp = self._log.logical(native)
            out[tp] = [envelope_of(tp, record) for record in records]
        return out

    def seek(self, offsets: Mapping[TP, int]) -> None:
        """Read on from *offsets*, within the assignment that is being taken over."""
        self._sought = offsets
        self._seeks += 1
        self._seek()

    def _seek(self) -> None:
        for tp, offset in self._sought.items():
            self._consumer.seek(self._log.native(tp), offset)

    def reached(self) -> Mapping[TP, int]:
        """Return the next offset of each partition, as of the last poll."""
        return self._reached

    def _assignment(self) -> Any:
        """Return the client's present assignment, an object of its own for each."""
        subscription = self._consumer._subscription.subscription  # noqa: SLF001
        return subscription.assignment if subscription is not None else None

    def _positions(self, assignment: Any) -> dict[TP, int]:
        # The client's own `position` waits for what is not known yet.
        if assignment is None:
            return {}
        states = ((tp, assignment.state_value(tp)) for tp in assignment.tps)
        return {
            self._log.logical(tp): s.position for tp, s in states if s is not None and s.has_valid_position
        }

    async def check_fenced(self) -> None:
        """Look, before joining anew, whether the group forgot us for another process of our name.

        The client would take the name back, and the two would throw each other out in turn.
        """
        forgotten = self._member and not self._consumer._coordinator.member_id  # noqa: SLF001
        if not forgotten or self._fenced is not None or self._stopping:
            return
        # A stop that began meanwhile waits for us: it must find nobody who waits for a stop.
        if await self._succeeded() and not self._stopping:
            self._fenced = fenced(self._instance)
            self._taken_over.set()

    async def _succeeded(self) -> bool:
        """Tell whether another live process is a member under our instance name."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.bootstrap, **self._settings.security)
        try:
            await admin.start()
            (found,) = await admin.describe_consumer_groups([self._group])
        except (KafkaError, TimeoutError):
            return False
        finally:
            await admin.close()
        # The broker names a static member after its instance, and anew for each process that takes its place.
        ids = {member[0] for group in found.groups for member in group[5]}
        return any(i != self._member and i[:-_UUID] == f"{self._instance}-" for i in ids)

    @property
    def is_fenced(self) -> bool:
        """Whether another process has taken this member's name."""
        return self._fenced is not None

    def pause(self, partitions: frozenset[TP]) -> None:
        """Give out nothing of *partitions*; the client, which forgets at a rebalance, says what holds."""
        wanted = {self._log.native(tp) for tp in partitions} & self._consumer.assignment()
        paused = self._consumer.paused()
        if wanted - paused:
            self._consumer.pause(*(wanted - paused))
        if paused - wanted:
            self._consumer.resume(*(paused - wanted))

    async def commit(self, offsets: Mapping[TP, Commit]) -> None:
        """Commit in one request."""
        native = {self._log.native(tp): OffsetAndMetadata(c.offset, c.metadata) for tp, c in offsets.items()}
        try:
            await self._consumer.commit(native)
        except (KafkaError, AssertionError, ValueError) as error:
            raise unavailable("commit for", self._group, error) from error

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, Commit]:
        """Return what the group committed, with its metadata, which only an admin client tells."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.bootstrap, **self._settings.security)
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(
                self._group, partitions=[self._log.native(tp) for tp in partitions]
            )
        except (KafkaError, TimeoutError) as error:
            raise unavailable("ask the commits of", self._group, error) from error
        finally:
            await admin.close()
        return {
            self._log.logical(tp): Commit(c.offset, c.metadata or "")
            for tp, c in found.items()
            if c.offset >= 0
        }

    async def stop(self) -> None:
        """Stop; a static member keeps its partitions until its session ends."""
        self._stopping = True
        if self._fenced is not None:
            joining = self._consumer._coordinator._coordination_task  # noqa: SLF001
            joining.cancel()
            with suppress(asyncio.CancelledError):
                await joining
        await asyncio.shield(self._consumer.stop())


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes the group's word on, in logical names."""

    def __init__(
        self, log: KafkaLog, consumer: KafkaConsumer, on_assigned: Listener, on_revoked: Listener
    ) -> None:
        self._log = log
        self._consumer = consumer
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Pass on what was taken away."""
        self._consumer.let_go()
        await self._consumer.check_fenced()
        if self._consumer.is_fenced:
            await asyncio.Event().wait()  # `stop` cancels: the client must not join anew
        await self._on_revoked(frozenset(self._log.logical(tp) for tp in revoked))

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Pass on what was given."""
        try:
            await self._on_assigned(frozenset(self._log.logical(tp) for tp in assigned))
        finally:
            self._consumer.take_over()
