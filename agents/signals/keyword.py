"""Words or patterns in a request's text, looked for together with those of all other keyword rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import ClassVar, Literal, Self

from agents.complaints import Complaint, Oddity
from agents.content import Content
from agents.signals import Heuristic, signal
from agents.text.bm25 import Bm25Index, Stems
from agents.text.edits import near
from agents.text.fold import lower
from agents.text.matching import Literal as Word
from agents.text.matching import Matcher, PatternError, compiled, is_bounded, unicode_bounded
from agents.text.ngrams import TEN, NgramIndex
from agents.text.stopwords import STOPWORDS
from schemas.signal import Observation

_EXACT = frozenset({"", "regex"})
_DEFAULT_BM25 = 0.1
_DEFAULT_NGRAM = 0.4
_DEFAULT_ARITY = 3
_DEFAULT_EDITS = 2
_HITS = 10
_MANY_EDITS = 20
_ASCII_WORD = re.compile(r"[A-Za-z0-9_]")


@signal
class Keyword(Heuristic):
    """Match when any (OR), all (AND) or none (NOR) of *keywords* occur in the last user turn.

    Literal keywords get ASCII word boundaries unless they hold a Han character or no word character at
    all; `method: regex` takes RE2 patterns, which cannot run away. `fuzzy_match` lets a word of the text
    be some edits away. `bm25` scores the keywords against the whole text, `ngram` compares its words.
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
        if self.kind not in {"", "regex", "bm25", "ngram"}:
            yield Complaint(
                ("method",), "method is regex, bm25, ngram, or left out for literal words", "start"
            )
        if self.kind in {"bm25", "ngram"} and not self.keywords:
            yield Complaint(("keywords",), f"{self.kind} needs keywords", "start")
        for index, keyword in enumerate(self.keywords if self.kind in _EXACT else ()):
            try:
                compiled(self.pattern(keyword))
            except PatternError as error:
                yield Complaint(("keywords", index), f"not a valid RE2 pattern: {error}", "start")

    def oddities(self) -> Iterator[Oddity]:
        """Iterate over keywords that can never match or always do, and settings without effect."""
        for index, keyword in enumerate(self.keywords):
            for code, message, key, value in self._odd(keyword):
                yield Oddity(("keywords", index), code, message, f"{key}: {value}", (((key,), value),))
        if self.kind == "bm25" and self.case_sensitive:
            message = "bm25 compares in lower case whatever this says"
            yield Oddity(
                ("case_sensitive",), "no-effect", message, "remove it", ((("case_sensitive",), None),)
            )
        many = len(self.keywords) > _HITS and self.operator == "AND"
        if self.kind == "ngram" and many and self.ngram_hits == "ten":
            message = "a search keeps ten keywords, so all of more than ten are never found at once"
            fix = ((("ngram_hits",), "all"),)
            yield Oddity(("keywords",), "ten-hits", message, "ngram_hits: all", fix)
        if self.fuzzy_match and self.fuzzy_threshold >= _MANY_EDITS:
            message = "it is a number of edits, no percentage: nearly every word is so close"
            edits = ((("fuzzy_threshold",), _DEFAULT_EDITS),)
            remedy = f"fuzzy_threshold: {_DEFAULT_EDITS}"
            yield Oddity(("fuzzy_threshold",), "many-edits", message, remedy, edits)
        if not self.keywords and self.operator in {"AND", "NOR"}:
            yield Oddity((), "always-matches", f"{self.operator} of no keywords always matches", "keywords")

    def _odd(self, keyword: str) -> Iterator[tuple[str, str, str, str]]:
        """Iterate over code, message, and the key and value that end what is odd about *keyword*."""
        if not keyword and self.empty_keywords == "match" and self.kind in _EXACT:
            yield "empty-keyword", "an empty keyword is in every text", "empty_keywords", "ignore"
        elif self.kind == "" and self.word_boundary == "ascii" and is_bounded(keyword):
            if not (_ASCII_WORD.match(keyword[0]) and _ASCII_WORD.match(keyword[-1])):
                message = "word boundaries are ASCII, so it never matches as a word of its own"
                yield "dead-keyword", message, "word_boundary", "unicode"
        elif self.kind == "bm25" and self.stop_words == "drop" and keyword.strip().lower() in STOPWORDS:
            yield "stop-word", "a stop word never matches under bm25", "stop_words", "keep"

    @property
    def kind(self) -> str:
        """Return the method as it is compared; "" is literal words."""
        return self.method.lower()

    @cached_property
    def counted(self) -> tuple[str, ...]:
        """The keywords that are looked for."""
        return tuple(k for k in self.keywords if k or self.empty_keywords == "match")

    @property
    def cut(self) -> tuple[str, ...]:
        """Return the keywords up to their first NUL, which is all that BM25 and n-grams are told of."""
        return tuple(keyword.partition("\0")[0] for keyword in self.counted)

    @property
    def edits(self) -> int:
        """Return how many edits away a word may be, less than 0 for none."""
        return self.fuzzy_threshold or _DEFAULT_EDITS

    def pattern(self, keyword: str) -> str:
        """Return the RE2 pattern of *keyword* where it is no literal."""
        if self.kind == "regex":
            return keyword if self.case_sensitive else f"(?i){keyword}"
        return unicode_bounded(keyword, folded=not self.case_sensitive)

    def literal(self, keyword: str) -> Word | None:
        """Return what a literal *keyword* looks for, None if it takes a pattern."""
        if self.kind == "regex" or (self.word_boundary == "unicode" and is_bounded(keyword)):
            return None
        return Word(keyword, is_bounded(keyword), not self.case_sensitive)

    def holds(self, hits: int) -> bool:
        """Tell what *hits* keywords mean to the operator; one that is unknown never matches."""
        if self.operator == "AND":
            return hits == len(self.counted)
        return hits > 0 if self.operator == "OR" else self.operator == "NOR" and hits == 0

    @classmethod
    def group(cls, configs: Sequence[Self]) -> Callable[[Content], Sequence[Observation]]:
        """Return what observes all *configs* in one pass over the text."""
        return _Group(configs)

    @cached_property
    def _alone(self) -> Callable[[Content], Sequence[Observation]]:
        return _Group([self])

    def evaluate(self, content: Content) -> Observation:
        """Return whether the keywords occur; no confidence is recorded."""
        return self._alone(content)[0]


class _Group:
    """All keyword rules of a policy: one matcher for words and patterns, one tokenization for BM25.

    What the rules come to where nothing occurs is known before; only rules with a hit are looked at.
    """

    def __init__(self, configs: Sequence[Keyword]) -> None:
        self._configs = configs
        self._matched = [config.observed(matched=True) for config in configs]
        self._unmatched = [config.observed(matched=False) for config in configs]
        self._at_rest = [self._outcome(n, 0) for n in range(len(configs))]
        words: list[tuple[int, Word]] = []
        patterns: list[tuple[int, str]] = []
        for number, config in enumerate(configs):
            for keyword in config.counted if config.kind in _EXACT else ():
                word = config.literal(keyword)
                if word is None:
                    patterns.append((number, config.pattern(keyword)))
                else:
                    words.append((number, word))
        self._owners = [number for number, _ in (*words, *patterns)]
        self._matcher = Matcher([word for _, word in words], [pattern for _, pattern in patterns])
        self._fuzzy = [n for n, c in enumerate(configs) if c.fuzzy_match and c.kind in _EXACT and c.edits > 0]
        self._bm25 = _bm25_of(configs)
        self._ngrams = {n: _ngrams_of(c) for n, c in enumerate(configs) if c.kind == "ngram"}

    def __call__(self, content: Content) -> list[Observation]:
        rows = self._at_rest.copy()
        hits = self._exact_hits(content)
        for number in self._fuzzy:
            hits[number] = self._near(number, hits.get(number, ()), content)
        for number, index in self._ngrams.items():
            hits[number] = index.found(content.text)
        if self._bm25 is not None:
            hits.update(self._bm25(content.text))
        for number, found in hits.items():
            rows[number] = self._outcome(number, len(found))
        return rows

    def _exact_hits(self, content: Content) -> dict[int, Collection[object]]:
        """Return rule -> what of its occurs, for the rules of which anything does."""
        hits: dict[int, list[object]] = {}
        for item in self._matcher.found(content.haystack):
            hits.setdefault(self._owners[item], []).append(item)
        return dict(hits)

    def _near(self, number: int, found: Collection[object], content: Content) -> Collection[object]:
        """Return the keywords of a fuzzy rule that occur, or nearly."""
        config = self._configs[number]
        if found and config.operator != "AND":
            return found
        return [k for k in config.counted if self._occurs(config, k, content)]

    def _occurs(self, config: Keyword, keyword: str, content: Content) -> bool:
        if near(lower(keyword), content.words, config.edits):
            return True
        word = config.literal(keyword)
        pattern = config.pattern(keyword) if word is None else word.pattern
        return compiled(pattern).search(content.encoded) is not None

    def _outcome(self, number: int, hits: int) -> Observation:
        matched = self._configs[number].holds(hits)
        return self._matched[number] if matched else self._unmatched[number]


def _bm25_of(configs: Sequence[Keyword]) -> Callable[[str], dict[int, set[int]]] | None:
    """Return what finds rule -> keywords for all rules scored by BM25; None if there are none."""
    stems = {kept: Stems(keep_stop_words=kept) for kept in (False, True)}
    rules = [(n, c, c.stop_words == "keep") for n, c in enumerate(configs) if c.kind == "bm25"]
    indices = [
        (n, kept, Bm25Index(c.cut, c.bm25_threshold or _DEFAULT_BM25, stems[kept].tokens))
        for n, c, kept in rules
    ]

    def search(text: str) -> dict[int, set[int]]:
        text = text.partition("\0")[0]
        queries = {kept: Counter(stems[kept].tokens(text)) for kept in {kept for _, kept, _ in indices}}
        return {number: index.found(queries[kept]) for number, kept, index in indices}

    return search if indices else None


def _ngrams_of(config: Keyword) -> NgramIndex:
    return NgramIndex(
        config.cut,
        arity=config.ngram_arity or _DEFAULT_ARITY,
        threshold=config.ngram_threshold or _DEFAULT_NGRAM,
        case_sensitive=config.case_sensitive,
        kept=TEN if config.ngram_hits == "ten" else None,
    )
