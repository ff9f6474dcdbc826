"""Words that are a few edits away from a keyword: Levenshtein distance on lower-cased runes."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from agents.text.fold import Blanked, is_letter_or_digit, lower

_BLANKED = Blanked(is_letter_or_digit)


def words(text: str) -> list[str]:
    """Return the distinct runs of Unicode letters and digits in *text*, lower-cased, in order."""
    return list(dict.fromkeys(lower(word) for word in text.translate(_BLANKED).split(" ") if word))


def near(keyword: str, among: Sequence[str], edits: int) -> bool:
    """Tell whether some word is at most *edits* insertions, deletions or changes from *keyword*."""
    size = len(keyword)
    return edits >= 0 and any(
        abs(len(word) - size) <= edits and Levenshtein.distance(word, keyword, score_cutoff=edits) <= edits
        for word in among
    )
