"""Keywords as documents, a text as the query: Okapi BM25 over English stems of ASCII words.

The text is transliterated to ASCII, lower-cased, cut at Unicode word boundaries, freed of stop words
and stemmed, case-sensitive or not. k1 = 1.2, b = 0.75, the average length is that of the rule's
keywords, idf = ln(1 + (N - n + 0.5) / (n + 0.5)); every repetition of a word adds its score again.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from anyascii import anyascii
from snowballstemmer import EnglishStemmer

from agents.text.fold import HAN
from agents.text.stopwords import STOPWORDS

_K1 = 1.2
_B = 0.75
_REMEMBERED = 50_000
# Word boundaries of UAX 29 over ASCII: letters, digits and low lines, joined by an apostrophe or full
# stop between letters and by these, comma or semicolon between digits.
_WORDS = re.compile(
    r"[0-9A-Za-z_]+(?:(?:(?<=[A-Za-z])['.](?=[A-Za-z])|(?<=[0-9])['.,;](?=[0-9]))[0-9A-Za-z_]+)*"
)
_FIRST_PICTOGRAPH = 0x2190
# Where the original's table differs: the long-vowel sign is dropped, a nasal dot is n, ayin is a mark that
# parts words, a zero-width space is a space, a Japanese form reads as Mandarin, a thumb is its nickname.
_OTHERWISE = {
    "\u30fc": "",
    "\u0902": "N",
    "\u0982": "N",
    "\u05e2": "`",
    "\u0639": "`",
    "\u200b": " ",
    "\U00020bb7": "Ji",
    "\U0001f44d": " +1 ",
}


class Stems:
    """The stems of words that were met before, so that a stemmer runs once a word."""

    def __init__(self, *, keep_stop_words: bool = False) -> None:
        self._stopped: frozenset[str] = frozenset() if keep_stop_words else STOPWORDS
        self._stemmer = EnglishStemmer()
        self._known: dict[str, str | None] = {}

    def tokens(self, text: str) -> list[str]:
        """Return the stems of *text* in order, repetitions included, stop words left out."""
        words = _WORDS.findall(ascii_of(text).lower())
        stems = (self._stem(word) for word in words if word.strip("_"))
        return [stem for stem in stems if stem is not None]

    def _stem(self, word: str) -> str | None:
        try:
            return self._known[word]
        except KeyError:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            stem = None if word in self._stopped else str(self._stemmer.stemWord(word))
            self._known[word] = stem
            return stem


class Bm25Index:
    """The keywords of one rule as documents."""

    def __init__(self, keywords: Sequence[str], threshold: float, tokens: Callable[[str], list[str]]) -> None:
        self._threshold = threshold
        documents = [Counter(tokens(keyword)) for keyword in keywords]
        lengths = [sum(document.values()) for document in documents]
        average = sum(lengths) / len(lengths) if lengths else 0.0
        self._scores: dict[str, list[tuple[int, float]]] = {}
        holders = Counter(token for document in documents for token in document)
        for number, document in enumerate(documents):
            for token, count in document.items():
                idf = math.log(1 + (len(documents) - holders[token] + 0.5) / (holders[token] + 0.5))
                norm = 1 - _B + _B * lengths[number] / average
                weight = idf * count * (_K1 + 1) / (count + _K1 * norm)
                self._scores.setdefault(token, []).append((number, weight))

    def found(self, query: Counter[str]) -> set[int]:
        """Return the numbers of the keywords whose score for the stems *query* reaches the threshold."""
        totals: dict[int, float] = {}
        for token in query.keys() & self._scores.keys():
            for number, weight in self._scores[token]:
                totals[number] = totals.get(number, 0.0) + weight * query[token]
        return {number for number, total in totals.items() if total >= self._threshold}


def ascii_of(text: str) -> str:
    """Return *text* in ASCII letters; a Han character or pictograph is a word of its own.

    Behind the first character outside ASCII, control characters (a line feed is one) are lost and join
    what they stood between: the original's transliteration works so.
    """
    if text.isascii():
        return text
    first = next(index for index, char in enumerate(text) if not char.isascii())
    return text[:first] + text[first:].translate(_ASCII)


class _Transliterations(dict[int, str]):
    """The ASCII spelling of every character met so far."""

    def __missing__(self, code: int) -> str:
        spelled = _spelled(chr(code))
        self[code] = spelled
        return spelled


def _spelled(char: str) -> str:
    if char < " ":
        return ""
    if char.isascii():
        return char
    spelled = _OTHERWISE.get(char, anyascii(char))
    if HAN.match(char):
        return f"{spelled} "
    if ord(char) >= _FIRST_PICTOGRAPH and spelled.startswith(":"):
        return f" {spelled.strip(':').replace('_', ' ')} "
    return spelled


_ASCII = _Transliterations()
