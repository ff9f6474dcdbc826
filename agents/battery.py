"""All signals of one role that a recipe demands, compiled together: one pass for each type.

Heuristics are observed here; for a classified signal the row says why there is nothing, until its
classifier has answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from agents.content import Content
from agents.errors import InvalidRecord
from agents.signals import Classified, Heuristic, Observe, SignalConfig
from schemas.signal import Observation

# What a signal may stumble over in content of an unexpected shape.
BAD_CONTENT = (InvalidRecord, TypeError, ValueError, LookupError, AttributeError)

UNREAD = "the content could not be read"
"""Why a classified signal has no value whose classifier was not asked."""


class Battery:
    """Observes *configs*, which stand in declaration order.

    A group that stumbles over the content is observed as failed; the others are not affected.
    """

    def __init__(self, configs: Sequence[SignalConfig]) -> None:
        self.configs = tuple(configs)
        self.classified: list[tuple[int, Classified]] = []
        """(place among the rows, signal) of what a classifier has yet to see; no labelled row precedes it."""
        self._groups: list[tuple[tuple[SignalConfig, ...], Observe | None]] = []
        place = 0
        for cls, members in groupby(self.configs, key=type):
            group = tuple(members)
            if issubclass(cls, Heuristic):
                self._groups.append((group, cls.group(group)))  # type: ignore[arg-type]
            else:
                self._groups.append((group, None))
                self.classified += [
                    (place + n, config) for n, config in enumerate(group) if isinstance(config, Classified)
                ]
            place += len(group)

    def observe(self, content: Content | str) -> list[Observation]:
        """Return a row for every signal; a str in place of content says why there is none."""
        rows: list[Observation] = []
        for group, observe in self._groups:
            if isinstance(content, str):
                rows += [config.unobserved("failed", content) for config in group]
            elif observe is None:
                rows += [config.unobserved("failed", UNREAD) for config in group]
            else:
                rows += _observed(group, observe, content)
        return rows


def _observed(group: tuple[SignalConfig, ...], observe: Observe, content: Content) -> Sequence[Observation]:
    try:
        return observe(content)
    except BAD_CONTENT as error:
        return [config.unobserved("failed", type(error).__name__) for config in group]
