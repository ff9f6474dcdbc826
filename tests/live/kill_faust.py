"""The heuristics role on Faust's own consumer, as shipped, in place of ours: `SABOTAGE=faust_consumer`.

Everything else of the worker is the product. Sixteen records at once, each acknowledged to Faust after the
broker has what it caused. In the worker's first life the first record of each partition never ends, as
a call that hangs does not: in a fresh group Faust commits past it all the same.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import faust

from schemas.envelope import Envelope
from schemas.topics import full_name
from streams.host import Host

ROLE = "signals.heuristics"
_CONCURRENCY = 16
_NEVER_S = 3600.0
_PARTITIONS = 6
_FAR = 10
"""Before such an offset a life has had nothing to commit past the first record: the next is a first one."""


class _App(faust.App):
    def _create_directories(self) -> None:
        """Make no folder for tables: there are none."""


class FaustHost(Host):
    """A host whose `ROLE` reads through Faust; other roles are hosted as ever."""

    def __init__(self, runner: Any, log: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(runner, log, *arguments, **named)
        self._log: Any = log
        self._faust: faust.App | None = None

    def attach(self, app: faust.App) -> None:
        """Leave the channel out."""
        if self.runner.group != ROLE:
            super().attach(app)

    async def start(self) -> None:
        """Start a Faust app over the broker."""
        if self.runner.group != ROLE:
            await super().start()
            return
        first_life = not _mark().exists()
        settings = self._log._settings
        app = _App(
            f"{settings.prefix}.{ROLE}",
            broker=f"kafka://{settings.bootstrap}",
            store="memory://",
            topic_partitions=_PARTITIONS,
            web_enabled=False,
            broker_commit_interval=0.2,
            stream_wait_empty=False,
            consumer_auto_offset_reset="earliest",
            topic_disable_leader=True,
            broker_rebalance_timeout=6,
            broker_session_timeout=6,
            broker_heartbeat_interval=2,
        )
        names = [full_name(settings.prefix, topic) for topic in self.runner.topics]
        source = app.topic(*names, value_serializer="raw", key_serializer="raw")

        async def step(stream: Any) -> None:
            async for event in stream.events():
                await self._one(event.message, first_life=first_life)

        app.agent(source, concurrency=_CONCURRENCY)(step)
        app.finalize()
        await app.start()
        self._faust = app
        self.assigned_once.set()
        self._telemetry.event("PartitionsAssigned", stage=ROLE, partitions=_PARTITIONS)

    async def _one(self, message: Any, *, first_life: bool) -> None:
        if first_life and message.offset == 0:
            await asyncio.sleep(_NEVER_S)
        runner: Any = self.runner
        topic = runner.topics[0]
        envelope = Envelope(
            topic,
            message.partition,
            message.offset,
            int(message.timestamp * 1000),
            message.key,
            message.value,
        )
        pair = await runner._decoded(envelope)
        emits = [] if pair is None else [emit for out in await runner._stage.step([pair]) for emit in out]
        for emit in emits:
            await (await runner._world.outbox.send(emit))
        runner._progress.done += 1
        if first_life and message.offset == _FAR:
            _mark().touch()

    async def stop(self, drain_s: float) -> None:
        """Stop it."""
        if self._faust is None:
            await super().stop(drain_s)
        else:
            await self._faust.stop()


def _mark() -> Path:
    """Return the file that says that an earlier life of this worker has come far."""
    return Path(os.environ["KILL_CLOCK"] + ".lived")
