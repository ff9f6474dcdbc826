"""Follow control topics: everything from their beginnings, then for ever, through outages of the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from agents.errors import Unavailable
from schemas.envelope import Envelope
from streams.log import TP, Log

_RETRY_S = 0.1

Taker = Callable[[Envelope], None]
"""Takes in one record; must not raise, or nothing that comes after it is heard of."""


class Follower:
    """One reader of several topics of one partition each, outside any group."""

    def __init__(self, log: Log, takers: Mapping[str, Taker]) -> None:
        self._log = log
        self._takers = takers
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is there, then keep following; raises `Unavailable` while there is no broker."""
        tps = [(topic, 0) for topic in self._takers if await self._log.partitions(topic)]
        ends = await self._log.ends(tps)
        position = dict(await self._log.begins(tps))
        async for envelope in self._log.read(position):
            self._take(envelope, position)
        start = {tp: max(position[tp], ends[tp]) for tp in tps}
        self._task = asyncio.create_task(self._follow(start), name="control topics")

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, position: dict[TP, int]) -> None:
        """Follow for ever: a broker that is away for a while must not end the learning."""
        while True:
            try:
                async for envelope in self._log.read(dict(position), follow=True):
                    self._take(envelope, position)
            except Unavailable:
                await asyncio.sleep(_RETRY_S)

    def _take(self, envelope: Envelope, position: dict[TP, int]) -> None:
        self._takers[envelope.topic](envelope)
        position[envelope.topic, envelope.partition] = envelope.offset + 1
