"""Keep up with `control.policy`: every policy by its hash, and which one is active."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping

from agents.errors import ConfigError, Unavailable
from agents.policy import Policy, PolicyBook
from agents.policy_life import PolicyLife
from agents.topology import Emit
from schemas.codec import Codec, UndecodableError
from schemas.control import PolicyActivated, PolicyPublished, PolicyShadowed
from schemas.envelope import Envelope
from schemas.topics import CONTROL_POLICY
from streams.follow import Follower, Taker
from streams.log import Log, Placed
from streams.outbox import Outbox

_RETRY_S = 0.1
_LOOK_S = 0.005
SAY_AGAIN_S = 2.0
"""So often a stage says that it waits for a policy, or a watchdog would take it for stuck."""


class Policies:
    """The policies that this process has read back from the log.

    *beside* are takers of other control topics, which the same reader follows.
    """

    def __init__(self, log: Log, codec: Codec, beside: Mapping[str, Taker] | None = None) -> None:
        self.book = PolicyBook()
        self.life = PolicyLife()
        self.active: str | None = None
        self._read = -1
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

    async def has_read(self, offset: int, within_s: float) -> None:
        """Wait until the record at *offset* has come back; raises `Unavailable` after *within_s* seconds."""
        until = time.monotonic() + within_s
        while self._read < offset:
            if time.monotonic() > until:
                raise Unavailable(
                    f"{CONTROL_POLICY} took the record, but it did not come back within {within_s:.0f} s; "
                    "see `signalbox policy status`"
                )
            await asyncio.sleep(_LOOK_S)

    def in_shadow(self) -> Policy | None:
        """Return the shadow policy, if there is one that has been read."""
        return self.life.shadow_in(self.book)

    def _take(self, envelope: Envelope) -> None:
        self._read = envelope.offset
        try:
            record = self._codec.decode(envelope.value)
            policy = Policy.loads(record.text) if isinstance(record, PolicyPublished) else None
        except (UndecodableError, ConfigError):
            return  # a tombstone, not ours, or of a later version: whoever is stamped with it is waited for
        if policy is not None:
            self.book.add(policy)
        else:
            self.life.take(record)
            self.active = self.life.active


async def publish(outbox: Outbox, policy: Policy, actor: str, now: int, *, activate: bool) -> None:
    """Write *policy* to `control.policy`, and with *activate* make it the active one.

    Returns when the log has acknowledged it.
    """
    published = PolicyPublished(policy.hash, policy.normal_form, actor, now)
    await tell(outbox, published)
    if activate:
        await tell(outbox, PolicyActivated(policy.hash, actor, "published", now))


Told = PolicyPublished | PolicyActivated | PolicyShadowed


async def tell(outbox: Outbox, record: Told) -> Placed:
    """Write *record* to `control.policy`; returns when the log has acknowledged it."""
    return await (await outbox.send(Emit(CONTROL_POLICY, 0, _key(record), record)))


def _key(record: Told) -> bytes:
    """Return what compaction goes by; it must keep every activation, or nothing can be rolled back."""
    if isinstance(record, PolicyPublished):
        return record.policy_hash.encode()
    if isinstance(record, PolicyShadowed):
        return b"shadow"
    return f"active/{record.activated_at}/{record.policy_hash[:16]}".encode()
