"""The retry tiers under the fold: what is due goes on, in the order in which it came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.retry import next_tier, wakes_at
from agents.topology import Emit, RetryStage
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from schemas.retry import Retry

if TYPE_CHECKING:
    from replay.fold import FoldWorld
    from replay.shelf import Place


class RetryFold:
    """A `RetryStage` under the fold."""

    def __init__(self, stage: RetryStage, world: FoldWorld) -> None:
        self._stage = stage
        self._world = world
        self._read: dict[Place, int] = {
            (topic, p): 0 for topic in stage.sources for p in range(world.shelf.partitions(topic))
        }

    async def step(self) -> bool:
        """Return what is due at the head of each tier; tell whether anything was."""
        moved = False
        for place in self._read:
            while self._head_goes_on(place):
                moved = True
        return moved

    def due(self) -> int | None:
        """Return when (ms) the first head of a tier wakes."""
        heads = [found for place in self._read if (found := self._head(place)) is not None]
        return min((wakes_at(*head) for head in heads), default=None)

    def _head(self, place: Place) -> tuple[Envelope, Retry] | None:
        for envelope in self._world.shelf.after(place, self._read[place], 1):
            try:
                return envelope, self._world.codec.decode_as(Retry, envelope.value)
            except UndecodableError as error:
                self._world.bury(self._stage.name, envelope, error)
                self._read[place] = envelope.offset + 1
                return self._head(place)
        return None

    def _head_goes_on(self, place: Place) -> bool:
        head = self._head(place)
        if head is None or wakes_at(*head) > self._world.clock.now:
            return False
        envelope, retry = head
        self._read[place] = envelope.offset + 1
        tier = next_tier(retry, self._world.clock.now)
        if tier is not None:
            self._world.emit(Emit(tier, envelope.partition, envelope.key or b"", retry))
        else:
            self._world.put_back(retry)
        return True
