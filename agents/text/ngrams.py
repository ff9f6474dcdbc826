"""Words that share character n-grams with a keyword, whatever the typo.

similarity = (A^2 - D^2) / A^2 with A = all n-grams of both, D = A - shared ones, over texts padded
with n - 1 blanks on either side (ngrammatic 0.7 with its default warp of 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from agents.text.fold import Blanked, is_alphanumeric

TEN = 10
"""How many hits the original keeps of each search."""

_LEAST_ARITY = 2
_REMEMBERED = 10_000
_BLANKED = Blanked(lambda char: char in "_-" or is_alphanumeric(char))


class NgramIndex:
    """The keywords of one rule, searched for by similarity."""

    def __init__(
        self,
        keywords: Sequence[str],
        *,
        arity: int,
        threshold: float,
        case_sensitive: bool,
        kept: int | None = TEN,
    ) -> None:
        self._arity = max(arity, _LEAST_ARITY)
        self._threshold = threshold
        self._kept = kept
        self._case_sensitive = case_sensitive
        self._numbers: dict[str, list[int]] = {}
        for number, keyword in enumerate(keywords):
            self._numbers.setdefault(self._cased(keyword), []).append(number)
        self._grams = {keyword: self._grams_of(keyword) for keyword in self._numbers}
        self._sizes = {keyword: sum(grams.values()) for keyword, grams in self._grams.items()}
        self._holders: dict[str, list[str]] = {}
        for keyword, grams in self._grams.items():
            for gram in grams:
                self._holders.setdefault(gram, []).append(keyword)
        self._total = len(keywords)
        self._seen: dict[str, tuple[int, ...]] = {}

    def found(self, text: str) -> set[int]:
        """Return the numbers of the keywords that some word of *text*, or all of it, is similar to."""
        text = self._cased(text.partition("\0")[0])
        found: set[int] = set()
        for word in dict.fromkeys(_words(text)):
            found.update(self._similar_to_word(word))
        if len(found) < self._total:
            found.update(self._similar(text))
        return found

    def _cased(self, text: str) -> str:
        return text if self._case_sensitive else text.lower()

    def _similar_to_word(self, word: str) -> tuple[int, ...]:
        """Return what `_similar` does; the words of a language come again and again."""
        known = self._seen.get(word)
        if known is None:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            known = self._seen[word] = tuple(self._similar(word))
        return known

    def _similar(self, text: str) -> Iterator[int]:
        """Iterate over the numbers of the keywords most similar to *text*; ties as declared."""
        grams = self._grams_of(text)
        size = sum(grams.values())
        scored = [
            (score, keyword)
            for keyword in self._candidates(grams)
            if (score := self._similarity(grams, size, keyword)) >= self._threshold
        ]
        scored.sort(key=lambda pair: -pair[0])
        for _, keyword in scored[: self._kept]:
            yield from self._numbers[keyword]

    def _candidates(self, grams: Counter[str]) -> list[str]:
        """Return the keywords that share a gram with *grams*, as declared."""
        shared = {keyword for gram in grams.keys() & self._holders.keys() for keyword in self._holders[gram]}
        return [keyword for keyword in self._numbers if keyword in shared]

    def _similarity(self, grams: Counter[str], size: int, keyword: str) -> float:
        others = self._grams[keyword]
        shared = sum(min(count, grams[gram]) for gram, count in others.items() if gram in grams)
        together = float(size + self._sizes[keyword] - shared)
        apart = together - shared
        return (together * together - apart * apart) / (together * together)

    def _grams_of(self, text: str) -> Counter[str]:
        pad = " " * (self._arity - 1)
        padded = f"{pad}{text}{pad}"
        return Counter(padded[i : i + self._arity] for i in range(len(padded) - self._arity + 1))


def _words(text: str) -> list[str]:
    return [word for word in text.translate(_BLANKED).split(" ") if word]
