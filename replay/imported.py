"""A request log of another product, file by file: its calls, and what of it could not be read.

Nothing of a line but its number and a reason that quotes nothing ever leaves this module as a complaint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

import replay.importers
from agents.errors import ConfigError, InvalidRecord
from replay.importers import Answered, Asked, Entry, Importer, Json, LeftOut, importer
from replay.signals_cli import lines_of

AUTO = "auto"
_LONGEST = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A line: the number of its file among those given, and its own from 1."""

    file: int
    line: int


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the log and what came of it; None where the log does not hold that."""

    place: Place
    key: str
    asked: Asked
    answered: Answered | None


@dataclass(slots=True)
class Reading:
    """What was met besides calls: lines that are malformed, and well-formed ones that were left out."""

    lines: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    malformed: dict[str, list[Place]] = field(default_factory=dict)
    left_out: dict[str, list[Place]] = field(default_factory=dict)


@dataclass(slots=True)
class ImportedLog:
    """The calls of *paths*, read as *form*: the name of an importer, or auto.

    Raises `ConfigError` for a name that is none.
    """

    paths: Sequence[Path]
    form: str = AUTO
    reading: Reading = field(default_factory=Reading)
    _open: dict[str, tuple[Place, Asked]] = field(default_factory=dict)
    _answers: dict[str, tuple[Place, Answered]] = field(default_factory=dict)
    _joined: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        importer.load(replay.importers)
        if self.form != AUTO and self.form not in importer:
            known = ", ".join(name for name, _ in importer)
            raise ConfigError(f"--format is {AUTO} or one of {known}, not {self.form}")

    def calls(self) -> Iterator[Call]:
        """Iterate over the calls, those whose halves lie in two lines as soon as both were met.

        Of two halves with the same name the first counts. Raises OSError.
        """
        for number, path in enumerate(self.paths):
            for line, raw in enumerate(lines_of(path), start=1):
                if raw.strip():
                    self.reading.lines += 1
                    yield from self._line(Place(number, line), raw)
        for key, (place, asked) in self._open.items():
            yield Call(place, key, asked, None)
        for place, _ in self._answers.values():
            self._malformed(place, "an answer whose request is in none of the files")
        self._open, self._answers, self._joined = {}, {}, set()

    def _line(self, place: Place, raw: bytes) -> Iterator[Call]:
        try:
            entry = self._entry(raw)
        except LeftOut as reason:
            self.reading.left_out.setdefault(str(reason), []).append(place)
        except InvalidRecord as error:
            self._malformed(place, str(error))
        else:
            yield from self._whole(place, entry)

    def _entry(self, raw: bytes) -> Entry:
        if len(raw) > _LONGEST:
            raise InvalidRecord(f"the line is longer than {_LONGEST} bytes")
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise InvalidRecord("the line is not valid JSON") from None
        if not isinstance(line, dict):
            raise InvalidRecord("the line is not a JSON object")
        name, chosen = self._importer(line)
        entry = chosen.read(line)
        self.reading.formats[name] = self.reading.formats.get(name, 0) + 1
        return entry

    def _importer(self, line: Json) -> tuple[str, Importer]:
        if self.form != AUTO:
            return self.form, importer[self.form]()
        for name, cls in importer:
            if cls().recognises(line):
                return name, cls()
        raise InvalidRecord("the line is of no known format")

    def _whole(self, place: Place, entry: Entry) -> Iterator[Call]:
        """Yield the call of *entry*, or keep the half that it is until the other comes."""
        if entry.asked is not None and entry.answered is not None:
            yield Call(place, entry.key, entry.asked, entry.answered)
        elif entry.asked is not None and not entry.key:
            yield Call(place, "", entry.asked, None)
        elif entry.asked is not None:
            yield from self._request(place, entry.key, entry.asked)
        elif entry.answered is not None:
            yield from self._answer(place, entry.key, entry.answered)

    def _request(self, place: Place, key: str, asked: Asked) -> Iterator[Call]:
        if key in self._answers:
            self._joined.add(key)
            yield Call(place, key, asked, self._answers.pop(key)[1])
        elif key in self._open or key in self._joined:
            self._malformed(place, "a request with the name of an earlier one")
        else:
            self._open[key] = (place, asked)

    def _answer(self, place: Place, key: str, answered: Answered) -> Iterator[Call]:
        if key in self._open:
            where, asked = self._open.pop(key)
            self._joined.add(key)
            yield Call(where, key, asked, answered)
        elif key in self._answers or key in self._joined:
            self._malformed(place, "an answer with the name of an earlier one")
        else:
            self._answers[key] = (place, answered)

    def _malformed(self, place: Place, why: str) -> None:
        self.reading.malformed.setdefault(why, []).append(place)
