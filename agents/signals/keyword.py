"""Words or patterns in the request's text: literal with word boundaries, or RE2 patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal

import re2

from agents.complaints import Complaint
from agents.content import Content
from agents.signals import Heuristic, signal
from schemas.signal import Observation

_HAN = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]"
)
_WORD = re.compile(r"\w")
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # the library would print a bad pattern; it is told in a ConfigError


@signal
class Keyword(Heuristic):
    """Match when any (OR), all (AND) or none (NOR) of *keywords* occur in the last user turn.

    Literal keywords get ASCII word boundaries unless they hold a Han character or no word
    character at all; `method: regex` takes RE2 patterns, which cannot run away.
    """

    collection: ClassVar[str] = "keywords"
    type: Literal["keyword"] = "keyword"
    operator: str = ""
    keywords: tuple[str, ...] = ()
    case_sensitive: bool = False
    method: str = ""
    bm25_threshold: float = 0.0
    ngram_threshold: float = 0.0
    ngram_arity: int = 0
    fuzzy_match: bool = False
    fuzzy_threshold: int = 0
    # Ours: where a word ends (ascii is the original's rule), whether "" is a keyword that is in every
    # text, whether stop words count under bm25, and how many hits an n-gram search keeps.
    word_boundary: Literal["ascii", "unicode"] = "ascii"
    empty_keywords: Literal["match", "ignore"] = "match"
    stop_words: Literal["drop", "keep"] = "drop"
    ngram_hits: Literal["ten", "all"] = "ten"

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over an operator, a method or patterns that the original cannot start with."""
        if self.operator not in {"AND", "OR", "NOR"}:
            yield Complaint(("operator",), "operator is AND, OR or NOR, in capitals", "start")
        if self.method.lower() not in {"", "regex", "bm25", "ngram"}:
            yield Complaint(
                ("method",), "method is regex, bm25, ngram, or left out for literal words", "start"
            )
        if self.method.lower() in {"bm25", "ngram"} and not self.keywords:
            yield Complaint(("keywords",), f"{self.method.lower()} needs keywords", "start")
        for index, keyword in enumerate(self.keywords if self.method.lower() in {"", "regex"} else ()):
            try:
                self._compile(self._pattern(keyword))
            except re2.error as error:
                yield Complaint(("keywords", index), f"not a valid RE2 pattern: {error}", "start")

    def _pattern(self, keyword: str) -> str:
        if self.method.lower() == "regex":
            return keyword
        quoted = str(re2.escape(keyword))
        bounded = _WORD.search(keyword) and not _HAN.search(keyword)
        return rf"\b{quoted}\b" if bounded else quoted

    def _compile(self, pattern: str) -> Any:  # noqa: ANN401 - re2 ships no types
        return re2.compile(pattern if self.case_sensitive else f"(?i){pattern}", _OPTIONS)

    @cached_property
    def _searches(self) -> tuple[Any, ...]:
        patterns = [self._pattern(keyword) for keyword in self.keywords]
        if self.operator == "AND":
            return tuple(self._compile(p) for p in patterns)
        return (self._compile("|".join(f"(?:{p})" for p in patterns)),)

    def evaluate(self, content: Content) -> Observation:
        """Return whether the keywords occur; no confidence is recorded."""
        text = content.text
        found = all(search.search(text) is not None for search in self._searches)
        return self.observed(matched=not found if self.operator == "NOR" else found)
