"""`control.policy` under the fold: policies by their hash, what is active, what runs in shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.policy import Policy
from agents.policy_life import PolicyLife
from schemas.codec import UndecodableError
from schemas.control import PolicyPublished
from schemas.topics import CONTROL_POLICY

if TYPE_CHECKING:
    from replay.fold import FoldWorld

_BATCH = 500


class PoliciesFold:
    """Reads what the topic holds into the fold's book."""

    def __init__(self, world: FoldWorld) -> None:
        self.life = PolicyLife()
        self._world = world
        self._position = 0

    def step(self) -> bool:
        """Read what is there; tell whether anything was."""
        found = self._world.shelf.after((CONTROL_POLICY, 0), self._position, _BATCH)
        for envelope in found:
            self._position = envelope.offset + 1
            try:
                record = self._world.codec.decode(envelope.value)
            except UndecodableError:
                continue
            if isinstance(record, PolicyPublished):
                self._world.book.add(Policy.loads(record.text))
            else:
                self.life.take(record)
        return bool(found)
