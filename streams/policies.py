"""Keep up with `control.policy`: every policy by its hash, and which one is active."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from agents.errors import ConfigError, Unavailable
from agents.policy import Policy, PolicyBook
from agents.topology import Emit
from schemas.codec import Codec, UndecodableError
from schemas.control import PolicyActivated, PolicyPublished
from schemas.topics import CONTROL_POLICY
from streams.log import Log, Placed
from streams.outbox import Outbox

_RETRY_S = 0.1


class Policies:
    """The policies that this process has read back from the log."""

    def __init__(self, log: Log, codec: Codec) -> None:
        self.book = PolicyBook()
        self.active: str | None = None
        self._log = log
        self._codec = codec
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is there, then keep following."""
        ends = await self._log.ends([(CONTROL_POLICY, 0)])
        position = 0
        async for envelope in self._log.read(await self._log.begins([(CONTROL_POLICY, 0)])):
            self._take(envelope.value)
            position = envelope.offset + 1
        start = {(CONTROL_POLICY, 0): max(position, ends[CONTROL_POLICY, 0])}
        self._task = asyncio.create_task(self._follow(start), name="policies")

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def has(self, policy_hash: str) -> None:
        """Wait until the policy has been read; a worker never decides by another one instead."""
        while policy_hash not in self.book:  # noqa: ASYNC110 - rare, and read by a task of its own
            await asyncio.sleep(_RETRY_S)

    async def _follow(self, start: dict[tuple[str, int], int]) -> None:
        """Follow for ever: a broker that is away for a while must not end the learning of policies."""
        while True:
            try:
                async for envelope in self._log.read(start, follow=True):
                    self._take(envelope.value)
                    start = {(CONTROL_POLICY, 0): envelope.offset + 1}
            except Unavailable:
                await asyncio.sleep(_RETRY_S)

    def _take(self, value: bytes | None) -> None:
        try:
            record = self._codec.decode(value)
            policy = Policy.loads(record.text) if isinstance(record, PolicyPublished) else None
        except (UndecodableError, ConfigError):
            return  # a tombstone, not ours, or of a later version: whoever is stamped with it is waited for
        if policy is not None:
            self.book.add(policy)
        elif isinstance(record, PolicyActivated):
            self.active = record.policy_hash


async def publish(outbox: Outbox, policy: Policy, actor: str, now: int, *, activate: bool) -> None:
    """Write *policy* to `control.policy`, and with *activate* make it the active one.

    Returns when the log has acknowledged it.
    """
    published = PolicyPublished(policy.hash, policy.normal_form, actor, now)
    records: list[tuple[bytes, object]] = [(policy.hash.encode(), published)]
    if activate:
        records.append((b"active", PolicyActivated(policy.hash, actor, "published", now)))
    acks: list[Awaitable[Placed]] = [
        await outbox.send(Emit(CONTROL_POLICY, 0, key, record)) for key, record in records
    ]
    for ack in acks:
        await ack
