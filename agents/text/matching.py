"""Many words and patterns looked for in one pass over a text, with RE2's meaning of each.

A literal that must stand between ASCII word boundaries is complete runs of ASCII word characters with
something between: its runs are looked up among the text's, and only a literal of several pieces whose
runs are all there is then searched for. Everything else goes into one `re2.Set`. No pattern can run
away: RE2 is linear in the text, and its memory is bounded; where a set's automaton outgrows its budget,
its patterns are tried one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import re2

from agents.text.fold import ASCII_WORDS, folds_to_ascii, is_letter_or_digit

_MEMORY = 16 << 20
_OUTSIDE = r"[^\p{L}\p{N}\p{M}_]"
_INSIDE = re2.compile(r"[\p{L}\p{N}\p{M}_]")
_HAN = re2.compile(r"\p{Han}")
_EVERYTHING = ""
_BUDGET = re2.Options()
_BUDGET.log_errors = False  # the library would print a bad pattern; it is told in an error of ours
_BUDGET.max_mem = _MEMORY

PatternError = re2.error


def compiled(pattern: str) -> Any:  # noqa: ANN401 - re2 ships no types
    r"""Return *pattern* compiled with a bounded budget; raises `PatternError`.

    One byte of any kind (`\C`) is refused: the original knows no such thing, and neither does UTF-8.
    """
    if "\\C" in pattern.replace("\\\\", ""):
        raise PatternError("invalid escape sequence: \\C")
    return re2.compile(pattern, _BUDGET)


def is_bounded(literal: str) -> bool:
    """Tell whether the original puts word boundaries around *literal*: no Han in it, and some word."""
    worded = any(c == "_" or is_letter_or_digit(c) for c in literal)
    return worded and _HAN.search(literal) is None


def unicode_bounded(literal: str, *, folded: bool) -> str:
    """Return a pattern of *literal* between boundaries of words in any script.

    Only where it begins or ends with a letter, digit, mark or low line may nothing of the kind touch it.
    """
    left = rf"(?:\A|{_OUTSIDE})" if _INSIDE.match(literal) else ""
    right = rf"(?:{_OUTSIDE}|\z)" if _INSIDE.search(literal[-1:]) else ""
    return f"{'(?i)' if folded else ''}{left}{re2.escape(literal)}{right}"


@dataclass(frozen=True, slots=True)
class Literal:
    """Text that is looked for as it stands; *bounded* between ASCII word boundaries."""

    text: str
    bounded: bool
    folded: bool = True

    @property
    def pattern(self) -> str:
        """Return the RE2 pattern that means the same."""
        quoted = str(re2.escape(self.text))
        bounded = rf"\b{quoted}\b" if self.bounded else quoted
        return f"(?i){bounded}" if self.folded else bounded

    @property
    def runs(self) -> tuple[str, ...]:
        """Return the ASCII word runs that a text with this literal has, as complete runs.

        None where case folding could make a run of the text look otherwise.
        """
        if not self.bounded or (self.folded and folds_to_ascii(self.text)):
            return ()
        runs = ASCII_WORDS.findall(self.text)
        return tuple(run.lower() if self.folded else run for run in runs)


class Haystack:
    """A text as a matcher looks at it; made once for all matchers."""

    def __init__(self, text: str, encoded: bytes) -> None:
        self.text = text
        self.encoded = encoded

    @cached_property
    def runs(self) -> frozenset[str]:
        """The runs of ASCII word characters."""
        return frozenset(ASCII_WORDS.findall(self.text))

    @cached_property
    def folded_runs(self) -> frozenset[str]:
        """The same, lower-cased."""
        if self.text.isascii():
            return frozenset(ASCII_WORDS.findall(self.text.lower()))
        return frozenset([run.lower() for run in self.runs])

    @cached_property
    def deceptive(self) -> bool:
        """Whether a run of the text may equal a keyword without looking like it."""
        return folds_to_ascii(self.text)


class Matcher:
    """Literals and patterns, numbered in this order; raises `PatternError` for a bad pattern."""

    def __init__(self, literals: Sequence[Literal], patterns: Sequence[str] = ()) -> None:
        self._patterns = (*(literal.pattern for literal in literals), *patterns)
        self._exact: dict[str, list[int]] = {}
        self._folded: dict[str, list[int]] = {}
        self._pieces: dict[int, frozenset[str]] = {}
        self._single: dict[int, Any] = {}
        rest: list[int] = list(range(len(literals), len(self._patterns)))
        for index, literal in enumerate(literals):
            if literal.runs:
                self._index(index, literal)
            else:
                rest.append(index)
        self._rest = _PatternSet({index: self._patterns[index] for index in rest})

    def _index(self, index: int, literal: Literal) -> None:
        table = self._folded if literal.folded else self._exact
        # The longest run is the rarest guess that a matcher can make without having seen a text.
        table.setdefault(max(literal.runs, key=len), []).append(index)
        if literal.runs != (literal.text.lower() if literal.folded else literal.text,):
            self._pieces[index] = frozenset(literal.runs)

    def found(self, hay: Haystack) -> set[int]:
        """Return the numbers of what occurs in *hay*."""
        found: set[int] = set()
        if hay.deceptive:
            found.update(self._one_by_one(hay))
        else:
            if self._folded:
                found.update(self._by_runs(self._folded, hay.folded_runs, hay))
            if self._exact:
                found.update(self._by_runs(self._exact, hay.runs, hay))
        found.update(self._rest.found(hay.encoded))
        return found

    def _by_runs(self, table: dict[str, list[int]], runs: frozenset[str], hay: Haystack) -> Iterable[int]:
        for run in table.keys() & runs:
            for index in table[run]:
                pieces = self._pieces.get(index)
                if pieces is None or (pieces <= runs and self._searched(index, hay)):
                    yield index

    def _searched(self, index: int, hay: Haystack) -> bool:
        return self._compiled(index).search(hay.encoded) is not None

    def _compiled(self, index: int) -> Any:  # noqa: ANN401 - re2 ships no types
        """Return pattern *index*, compiled when it is first needed: most never are."""
        single = self._single.get(index)
        if single is None:
            single = self._single[index] = compiled(self._patterns[index])
        return single

    def _one_by_one(self, hay: Haystack) -> Iterator[int]:
        """Iterate over the literals that occur, each searched for by itself: slow, and right for any text."""
        for indices in (*self._folded.values(), *self._exact.values()):
            yield from (index for index in indices if self._searched(index, hay))


class _PatternSet:
    """Patterns by number, searched for together."""

    def __init__(self, patterns: dict[int, str]) -> None:
        self._single = {index: compiled(pattern) for index, pattern in patterns.items()}
        self._numbers = tuple(patterns)
        self._set: Any = None
        if patterns:
            self._set = re2.Set.SearchSet(_BUDGET)
            for pattern in (*patterns.values(), _EVERYTHING):
                self._set.Add(pattern)
            self._set.Compile()

    def found(self, encoded: bytes) -> Iterable[int]:
        if self._set is None:
            return ()
        hits = self._set.Match(encoded)
        # The last pattern matches every text: no hit at all means that the automaton ran out of memory.
        if hits:
            return [self._numbers[hit] for hit in hits if hit < len(self._numbers)]
        return [index for index, single in self._single.items() if single.search(encoded) is not None]
