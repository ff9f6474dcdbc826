"""Words of incidents and alerts: event types, severities, action codes, signs of urgency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal, Self

from agents.complaints import Oddity
from agents.content import Content
from agents.signals import Heuristic, signal
from agents.text.matching import Haystack, Matcher
from agents.text.matching import Literal as Word
from agents.text.window import window
from schemas.signal import Observation

_SEVERITIES = ("critical", "high", "medium", "low")
_URGENT = ("urgent", "immediate", "asap", "deadline", "now")
# A point stands for any character but a line feed, as in the original.
_URGENT_PATTERNS = (r"(?i)\btime.sensitive\b", r"(?i)\bcritical.window\b")


@signal
class Event(Heuristic):
    """Match when any of the configured groups is met: one of its words occurs, between word boundaries.

    Confidence is 0.5 + 0.5 * groups met / groups configured. A severity that is none of critical, high,
    medium and low is no severity; long texts are sampled.
    """

    collection: ClassVar[str] = "events"
    type: Literal["event"] = "event"
    description: str = ""
    event_types: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    action_codes: tuple[str, ...] = ()
    temporal: bool = False

    def oddities(self) -> Iterator[Oddity]:
        """Iterate over severities that nothing can have."""
        for index, written in enumerate(self.severities):
            if written.strip().lower() not in _SEVERITIES:
                known = ", ".join(_SEVERITIES)
                yield Oddity(
                    ("severities", index),
                    "unknown-severity",
                    "is no severity, so it never matches",
                    f"one of: {known}",
                )

    @property
    def groups(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return (label, words) of every configured group; the label is "" where none is published."""
        severities = [s.strip().lower() for s in self.severities]
        groups = (
            ("", _stripped(self.event_types)),
            ("severity", tuple(s for s in severities if s in _SEVERITIES)),
            ("", _stripped(self.action_codes)),
        )
        return tuple(group for group in groups if group[1])

    @classmethod
    def group(cls, configs: Sequence[Self]) -> Callable[[Content], Sequence[Observation]]:
        """Return what observes all *configs* in one pass over the text."""
        return _Group(configs)

    def evaluate(self, content: Content) -> Observation:
        """Return whether some group is met."""
        return _Group([self])(content)[-1]


def _stripped(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in (written.strip() for written in words) if word)


class _Group:
    """All event rules of a policy over one matcher."""

    def __init__(self, configs: Sequence[Event]) -> None:
        self._configs = configs
        words = [word for config in configs for _, group in config.groups for word in group]
        self._numbers = {word: n for n, word in enumerate(dict.fromkeys((*words, *_URGENT)))}
        literals = [Word(word, bounded=True) for word in self._numbers]
        self._matcher = Matcher(literals, _URGENT_PATTERNS)
        first = len(literals)
        self._urgent = {self._numbers[word] for word in _URGENT} | {first, first + 1}

    def __call__(self, content: Content) -> list[Observation]:
        text = window(content.text)
        found = self._matcher.found(Haystack(text, text.encode("utf-8", "replace")))
        return [observation for config in self._configs for observation in self._observed(config, found)]

    def _observed(self, config: Event, found: set[int]) -> Iterator[Observation]:
        """Iterate over the labelled values of *config*, then its observation."""
        met = [label for label, words in config.groups if any(self._numbers[word] in found for word in words)]
        total = len(config.groups) + config.temporal
        if config.temporal and not self._urgent.isdisjoint(found):
            met.append("temporal")
        for label in met:
            if label:
                yield config.observed(matched=False, label=label, value=1.0)
        if met:
            yield config.observed(matched=True, confidence=0.5 + 0.5 * len(met) / total)
        else:
            yield config.observed(matched=False)
