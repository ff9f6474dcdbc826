"""A consumer that is watched: it counts what passes through it, for those who judge its progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.envelope import Envelope
from streams.log import TP, Commit, Consumer, Listener


class ObservedConsumer:
    """A `Consumer` over another one; counters count since its start."""

    def __init__(self, inner: Consumer) -> None:
        self._inner = inner
        self._committing = 0
        self.read = 0
        self.commits = 0
        self.joined = False
        self.assigned: frozenset[TP] = frozenset()

    @property
    def committing(self) -> bool:
        """Whether a commit is on its way, or the last one did not get through."""
        return self._committing > 0

    async def start(self, on_assigned: Listener, on_revoked: Listener) -> None:
        """Join; what is assigned counts once its listener has taken it over."""

        async def assigned(partitions: frozenset[TP]) -> None:
            self.assigned = partitions
            await on_assigned(partitions)
            self.joined = True

        async def revoked(partitions: frozenset[TP]) -> None:
            self.joined, self.assigned = False, frozenset()
            try:
                await on_revoked(partitions)
            finally:
                self._committing = 0  # the next owner resumes from what got through

        await self._inner.start(assigned, revoked)

    async def poll(self, timeout_s: float) -> Mapping[TP, Sequence[Envelope]]:
        """Poll and count."""
        found = await self._inner.poll(timeout_s)
        self.read += sum(len(records) for records in found.values())
        return found

    def reached(self) -> Mapping[TP, int]:
        """Pass on."""
        return self._inner.reached()

    def unread(self, ends: Mapping[TP, int]) -> Mapping[TP, int]:
        """Return how many records of each assigned partition lie between what was read and *ends*."""
        reached = self._inner.reached()
        return {tp: max(ends[tp] - reached[tp], 0) for tp in self.assigned if tp in reached and tp in ends}

    def seek(self, offsets: Mapping[TP, int]) -> None:
        """Pass on."""
        self._inner.seek(offsets)

    def pause(self, partitions: frozenset[TP]) -> None:
        """Pass on."""
        self._inner.pause(partitions)

    async def commit(self, offsets: Mapping[TP, Commit]) -> None:
        """Commit and count; one that fails is on its way until another one gets through."""
        self._committing = 1
        await self._inner.commit(offsets)
        self.commits += 1
        self._committing = 0

    async def committed(self, partitions: Sequence[TP]) -> Mapping[TP, Commit]:
        """Pass on."""
        return await self._inner.committed(partitions)

    async def stop(self) -> None:
        """Leave."""
        await self._inner.stop()
