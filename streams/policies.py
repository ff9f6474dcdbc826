"""Keep up with `control.policy`: every policy by its hash, and which one is active."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Mapping

from agents.errors import ConfigError
from agents.policy import Policy, PolicyBook
from agents.topology import Emit
from schemas.codec import Codec, UndecodableError
from schemas.control import PolicyActivated, PolicyPublished
from schemas.envelope import Envelope
from schemas.topics import CONTROL_POLICY
from streams.follow import Follower, Taker
from streams.log import Log, Placed
from streams.outbox import Outbox

_RETRY_S = 0.1
SAY_AGAIN_S = 2.0
"""So often a stage says that it waits for a policy, or a watchdog would take it for stuck."""


class Policies:
    """The policies that this process has read back from the log.

    *beside* are takers of other control topics, which the same reader follows.
    """

    def __init__(self, log: Log, codec: Codec, beside: Mapping[str, Taker] | None = None) -> None:
        self.book = PolicyBook()
        self.active: str | None = None
        self._codec = codec
        self._follower = Follower(log, {CONTROL_POLICY: self._take, **(beside or {})})

    async def start(self) -> None:
        """Read what is there, then keep following."""
        await self._follower.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._follower.stop()

    async def has(self, policy_hash: str, within_s: float = math.inf) -> None:
        """Wait until the policy has been read, or *within_s* seconds.

        A worker never decides by another one instead; it says once in a while that it waits.
        """
        until = time.monotonic() + within_s
        while policy_hash not in self.book and time.monotonic() < until:  # noqa: ASYNC110 - rare
            await asyncio.sleep(_RETRY_S)

    def _take(self, envelope: Envelope) -> None:
        try:
            record = self._codec.decode(envelope.value)
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
