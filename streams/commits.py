"""What one member commits: kept until the broker has taken it, with marks of who is at work on what.

The only caller of a consumer's `commit`. One request at a time, all inputs of a role in each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.errors import Unavailable
from streams.log import TP, Commit, Consumer, Log
from streams.suspects import OPEN, Suspects, own_text, suspects_of

_RETRY_S = 0.2


class Commits:
    """The commits of one member; `due` tells what a runner has to commit now, each offset once."""

    def __init__(
        self, consumer: Consumer, log: Log, instance: str, due: Callable[[], Mapping[TP, Commit]]
    ) -> None:
        self._consumer = consumer
        self._log = log
        self._instance = instance
        self._due = due
        self._lock = asyncio.Lock()
        self._held: dict[TP, Commit] = {}
        self._pending: set[TP] = set()
        self._suspects: dict[TP, Suspects] = {}
        self._opened = False

    async def assigned(self, partitions: frozenset[TP], width: int) -> None:
        """Take over *partitions*: where each resumes, and *width* suspects where the last holder crashed."""
        tps = sorted(partitions)
        found = await self._consumer.committed(tps)
        begins = await self._log.begins([tp for tp in tps if tp not in found])
        self._pending.clear()
        self._opened = False
        self._held = {tp: found.get(tp) or Commit(begins[tp]) for tp in tps}
        self._suspects = {tp: suspects_of(c.metadata, c.offset, width) for tp, c in self._held.items()}

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, Commit]:
        """Return where *partitions* resume, as of their assignment; others are asked for."""
        asked = [tp for tp in partitions if tp not in self._held]
        return {
            **{tp: self._held[tp] for tp in partitions if tp in self._held},
            **(await self._consumer.committed(asked) if asked else {}),
        }

    def resumes(self, tp: TP) -> int:
        """Return the offset of *tp* that is or will be committed."""
        return self._held[tp].offset if tp in self._held else 0

    async def open(self) -> None:
        """Mark every partition as held, before the first record of an assignment is touched."""
        if not self._opened:
            await self._insist(self._held)

    def is_suspect(self, tp: TP, offset: int) -> bool:
        """Tell whether the record there must run alone."""
        found = self._suspects.get(tp)
        return found is not None and offset < found.until

    async def alone(self, tp: TP, offset: int) -> int:
        """Record durably that *offset* runs alone from now on; return how many processes it has ended.

        Raises `Unavailable` if the partition is no longer ours.
        """
        for suspects in self._suspects.values():
            suspects.running = False
        crashes = self._suspects[tp].begin(offset) if tp in self._suspects else 0
        await self._insist([tp])
        return crashes

    def done(self, tp: TP) -> None:
        """Note that what ran alone has ended well; the next commit says so."""
        if tp in self._suspects:
            self._suspects[tp].running = False
            self._pending.add(tp)

    async def flush(self) -> None:
        """Commit what is due and what the broker has not taken yet; raises `Unavailable`."""
        async with self._lock:
            for tp, commit in self._due().items():
                if tp in self._held:
                    self._held[tp] = commit
                    self._pending.add(tp)
            sent = {tp: self._marked(tp) for tp in self._pending}
            if not sent:
                return
            await self._consumer.commit(sent)
            self._pending.difference_update(tp for tp, c in sent.items() if self._marked(tp) == c)

    async def close(self) -> None:
        """Commit for the last time, without the mark of a holder, and let go; raises `Unavailable`."""
        if self._opened:
            self._opened = False
            self._pending.update(self._held)
        try:
            await self.flush()
        finally:
            self._held.clear()
            self._pending.clear()
            self._suspects.clear()

    @property
    def pending(self) -> int:
        """How many partitions wait for the broker to take their commit."""
        return len(self._pending)

    def _marked(self, tp: TP) -> Commit:
        commit = self._held[tp]
        text: dict[str, Any] = {**own_text(commit.metadata), **self._suspects[tp].marks()}
        if self._opened:
            text[OPEN] = self._instance
        return Commit(commit.offset, json.dumps(text) if text else "")

    async def _insist(self, partitions: Sequence[TP] | Mapping[TP, Commit]) -> None:
        """Commit marks of *partitions*, through outages, for as long as they are ours."""
        wanted, self._opened = frozenset(partitions), True
        while wanted <= self._held.keys():
            self._pending |= wanted
            try:
                await self.flush()
            except Unavailable:
                await asyncio.sleep(_RETRY_S)
            else:
                return
        raise Unavailable("the partition was given to another member")
