"""One partition of a provider's worker, while it is ours: its prefix, its ledger, and what is under way."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field

from agents.ledger import Ledger, started
from agents.topology import emit_for
from agents.turn import Desk
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from schemas.job import AttemptEnded, AttemptStarted, Job
from streams.log import TP, Commit, Placed
from streams.prefix import Prefix
from streams.runners import World

_LOOK_AGAIN_MS = 1000
_CHECKPOINT_MS = 1000
_WAITED_SHARE = 4
"""A start is written anew if one in so many parts of the call's timeout went by until the log had it."""


class LeaseLost(Exception):
    """The job was not called when its partition or its worker went; its next owner reads it again."""


@dataclass(slots=True)
class Lease:
    """What is committed, what the ledger says, and where the ledger must be read from.

    The ledger is read back from before every start of a job that is not committed, and at least
    *horizon_ms*: a copy of a job that comes later than that is called again.
    """

    world: World
    desk: Desk
    own: TP
    prefix: Prefix
    horizon_ms: int
    ledger: Ledger = field(default_factory=Ledger)
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    alive: bool = True
    _starts: dict[int, int] = field(default_factory=dict)
    _checkpoints: deque[tuple[int, int]] = field(default_factory=deque)
    _starting: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _tail: asyncio.Task[None] | None = None
    _left_behind: bool = False

    async def take_over(self, back: int) -> None:
        """Read the ledger from offset *back*, then follow it while an older owner may still write."""
        position = await self._read(back)
        self._checkpoints.append((self.world.now(), back))
        self._tail = asyncio.create_task(self._follow(position))

    async def _read(self, position: int) -> int:
        async for envelope in self.world.log.read({self.own: position}):
            position = envelope.offset + 1
            self._note(envelope)
        return position

    async def _follow(self, position: int) -> None:
        until = self.ledger.open_until()
        while self.alive and self.world.now() < until:
            position = await self._read(position)
            await asyncio.sleep(_LOOK_AGAIN_MS / 1000)

    def _note(self, envelope: Envelope) -> None:
        try:
            record = self.world.codec.decode(envelope.value)
        except UndecodableError:
            return
        if isinstance(record, AttemptStarted | AttemptEnded):
            self.ledger.note(record, envelope.timestamp)
            if isinstance(record, AttemptEnded):
                self.desk.learn(record, self.world.now())

    async def start(self, job: Job, offset: int) -> int:
        """Write that *job*, read at *offset*, is about to be called, and wait until the log has it.

        Return the ms of the call's timeout that went by meanwhile. Whoever reads the start takes the call to
        be over one timeout after the log's time of it, which may lie far back once the log has answered:
        a start that is old by then is followed by another. Raises `LeaseLost` if the partition went and the
        next owner may not know of the start.
        """
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            await self._start(started(job, self.world.worker, offset, self.world.now()), offset)
            waited_ms = int((clock() - began) * 1000)
            young = waited_ms <= job.call_timeout_ms // _WAITED_SHARE
            if self._left_behind or not (young or self.alive):
                raise LeaseLost
            if young:
                return waited_ms

    async def _start(self, record: AttemptStarted, offset: int) -> None:
        self._starting += 1
        try:
            placed: Placed = await (await self.world.outbox.send(emit_for(record)))
        finally:
            self._starting -= 1
            if not self._starting:
                self._quiet.set()
        self.ledger.note(record, placed.timestamp)
        self._starts.setdefault(offset, placed.offset)
        self._checkpoint(placed)

    async def end(self, record: AttemptEnded) -> None:
        """Write that an attempt ended, and wait until the log has it."""
        placed: Placed = await (await self.world.outbox.send(emit_for(record)))
        self.ledger.note(record, placed.timestamp)
        self._checkpoint(placed)

    def _checkpoint(self, placed: Placed) -> None:
        """Remember where the ledger was, once a second: the horizon bounds how many are kept."""
        if placed.timestamp >= self._checkpoints[-1][0] + _CHECKPOINT_MS:
            self._checkpoints.append((placed.timestamp, placed.offset))

    async def let_go(self, timeout_s: float) -> None:
        """Begin no further call, and wait until every start under way is in the log for the next owner."""
        self.alive = False
        if self._starting:
            self._quiet.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._quiet.wait()
            except TimeoutError:
                # Whoever comes next may have read the ledger before these starts were in it.
                self._left_behind = True

    def commit(self) -> Commit | None:
        """Return the completed prefix if it moved, with the position that the ledger is read back from."""
        offset = self.prefix.advance()
        if offset is None:
            return None
        # The start of a job that ended stays until it is committed: its next owner must see its end.
        self._starts = {job: start for job, start in self._starts.items() if job >= offset}
        self.trim()
        position = min([self._checkpoints[0][1], *self._starts.values()])
        return Commit(offset, json.dumps({"back": position}))

    def trim(self) -> None:
        """Forget checkpoints beyond the horizon."""
        horizon = self.world.now() - self.horizon_ms
        while len(self._checkpoints) > 1 and self._checkpoints[1][0] < horizon:
            self._checkpoints.popleft()


def back_from(metadata: str) -> int:
    """Return the ledger's position in a commit's *metadata*; 0, which is safe, where there is none."""
    try:
        return int(json.loads(metadata)["back"])
    except (ValueError, KeyError, TypeError):
        return 0
