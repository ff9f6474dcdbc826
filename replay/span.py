"""A stretch of time of a log: the decisions made in it, and whatever they were made of, whenever that was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from agents.errors import ConfigError
from replay.view import LogView
from schemas.codec import SchemaEntry
from schemas.envelope import Envelope
from schemas.topics import DECISIONS

_MOST = 2**62
_DAY_DIGITS = len("20260131")


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` to before `until`, by the log's own timestamps (ms since the epoch)."""

    since: int = 0
    until: int = _MOST

    @staticmethod
    def of(since: str | None, until: str | None) -> Span | None:
        """Return what a user gave, None for neither; raises `ConfigError` for what is no time."""
        if since is None and until is None:
            return None
        return Span(_moment(since, 0), _moment(until, _MOST))


def _moment(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    # Eight digits are a day, as ISO writes it without hyphens: as ms they would all lie in January of 1970.
    if text.isascii() and text.isdigit() and len(text) > _DAY_DIGITS:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no time: give one such as 2026-01-31, 2026-01-31T12:00:00Z, or milliseconds"
        ) from None
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class SpannedView:
    """The log *view*, of whose decisions those in *span* are seen."""

    def __init__(self, view: LogView, span: Span) -> None:
        self._view = view
        self._span = span

    def topics(self) -> Mapping[str, int]:
        """Pass on."""
        return self._view.topics()

    def read(self, topic: str, partition: int | None = None) -> Iterable[Envelope]:
        """Return the records of *topic*, of decisions those in the span."""
        found = self._view.read(topic, partition)
        return self._within(found) if topic == DECISIONS else found

    def _within(self, found: Iterable[Envelope]) -> Iterator[Envelope]:
        return (e for e in found if self._span.since <= e.timestamp < self._span.until)

    def schemas(self) -> Mapping[int, SchemaEntry]:
        """Pass on."""
        return self._view.schemas()

    def policies(self) -> Mapping[str, str]:
        """Pass on."""
        return self._view.policies()
