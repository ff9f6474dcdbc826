"""Numbers read off the form of a text: how often something occurs, how densely, in which order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal

from agents.bounds import fault_of
from agents.complaints import Complaint
from agents.content import Content
from agents.parts import Part
from agents.rules import Predicate
from agents.signals import Heuristic, signal
from agents.text.envelope import utf8_size
from agents.text.fold import lower
from agents.text.matching import PatternError, compiled
from agents.text.occurrence import count_keyword, count_pattern, in_sequence
from schemas.signal import Observation

_SLOPE = 4.0
_LEAST = 0.5
_FEATURES = ("exists", "count", "density", "sequence")
_NEEDED = {"regex": "pattern", "keyword_set": "keywords", "sequence": "sequences", "text_bytes": ""}
_SHORTEST = 2


class StructureSource(Part):
    """What is counted."""

    type: str = ""
    pattern: str = ""
    keywords: tuple[str, ...] = ()
    sequences: tuple[tuple[str, ...], ...] = ()
    case_sensitive: bool = False

    @property
    def kind(self) -> str:
        """Return the type as it is compared."""
        return self.type.strip().lower()


class StructureFeature(Part):
    """How what is counted becomes a number."""

    type: str = ""
    source: StructureSource = StructureSource()

    @property
    def kind(self) -> str:
        """Return the type as it is compared."""
        return self.type.strip().lower()


@signal
class Structure(Heuristic):
    """Match when a number of the text satisfies *predicate*, or is positive where there is none.

    Its confidence grows with the distance to the first bound in the order gt, gte, lt, lte, from 0.5;
    the number is published whether it matches or not.
    """

    collection: ClassVar[str] = "structure"
    type: Literal["structure"] = "structure"
    description: str = ""
    feature: StructureFeature = StructureFeature()
    predicate: Predicate | None = None

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over a feature, a source or a predicate that cannot be evaluated."""
        feature, source = self.feature.kind, self.feature.source
        if feature not in _FEATURES:
            yield Complaint(("feature", "type"), f"feature.type is one of: {', '.join(_FEATURES)}")
        if source.kind not in _NEEDED:
            yield Complaint(("feature", "source", "type"), f"source.type is one of: {', '.join(_NEEDED)}")
        elif source.kind == "text_bytes" and feature != "count":
            yield Complaint(("feature", "source", "type"), "text_bytes can only be counted")
        elif feature == "sequence" and source.kind != "sequence":
            yield Complaint(("feature", "type"), "a sequence feature needs a sequence source")
        elif _NEEDED[source.kind] and not getattr(source, _NEEDED[source.kind]):
            yield Complaint((), f"a {source.kind} source needs {_NEEDED[source.kind]}")
        elif source.kind == "sequence" and any(len(s) < _SHORTEST for s in source.sequences):
            yield Complaint((), "a sequence has at least two markers")
        if self.predicate is not None and (fault := fault_of(self.predicate)) is not None:
            yield Complaint(("predicate",), fault)
        yield from self._pattern_complaints()

    def _pattern_complaints(self) -> Iterator[Complaint]:
        if self.feature.source.kind == "regex":
            try:
                compiled(self._pattern)
            except PatternError as error:
                path = ("feature", "source", "pattern")
                yield Complaint(path, f"not a valid RE2 pattern: {error}", "start")

    @property
    def _pattern(self) -> str:
        written = self.feature.source.pattern
        ready = self.feature.source.case_sensitive or written.startswith("(?i)")
        return written if ready else f"(?i){written}"

    @cached_property
    def _compiled(self) -> Any:  # noqa: ANN401 - re2 ships no types
        return compiled(self._pattern)

    def evaluate(self, content: Content) -> Observation:
        """Return whether the number is as asked; the value is the number."""
        value = self._value(content)
        matched = value > 0 if self.predicate is None else self.predicate.holds(value)
        return self.observed(
            matched=matched, confidence=self._confidence(value, matched=matched), value=value
        )

    def _value(self, content: Content) -> float:
        kind, source = self.feature.kind, self.feature.source
        if source.kind == "text_bytes":
            return float(utf8_size(content.user_text))
        if kind == "exists":
            return 1.0 if self._occurs(content) else 0.0
        if kind == "sequence" or source.kind == "sequence":
            count = float(self._in_sequence(content))
        else:
            count = float(self._count(content))
        if kind != "density":
            return count
        whole = content.units
        return count / whole if whole > 0 else 0.0

    def _occurs(self, content: Content) -> bool:
        if self.feature.source.kind == "regex":
            return self._compiled.search(content.encoded) is not None
        if self.feature.source.kind == "sequence":
            return self._in_sequence(content)
        return self._count(content) > 0

    def _count(self, content: Content) -> int:
        source = self.feature.source
        if source.kind == "regex":
            return count_pattern(self._compiled, content.encoded)
        text = content.text if source.case_sensitive else content.lowered
        return sum(count_keyword(text, keyword) for keyword in self._keywords)

    def _in_sequence(self, content: Content) -> bool:
        text = content.text if self.feature.source.case_sensitive else content.lowered
        return any(in_sequence(text, sequence) for sequence in self._sequences)

    @cached_property
    def _keywords(self) -> tuple[str, ...]:
        return tuple(self._cased(keyword) for keyword in self.feature.source.keywords)

    @cached_property
    def _sequences(self) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(map(self._cased, sequence)) for sequence in self.feature.source.sequences if sequence
        )

    def _cased(self, text: str) -> str:
        return text if self.feature.source.case_sensitive else lower(text)

    def _confidence(self, value: float, *, matched: bool) -> float:
        if not matched:
            return 0.0
        if self.predicate is None:
            return 1.0
        p = self.predicate
        bound = next(bound for bound in (p.gt, p.gte, p.lt, p.lte, 0.0) if bound is not None)
        return max(1.0 / (1.0 + math.exp(-_SLOPE * abs(value - bound))), _LEAST)
