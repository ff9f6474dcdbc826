"""Characters as the original's languages class and fold them: Go's letters, RE2's case, Rust's words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_CJK = (
    "\u1100-\u11ff\u2e80-\u2e99\u2e9b-\u2ef3\u2f00-\u2fd5\u3005\u3007\u3021-\u3029\u302e-\u302f\u3031-\u3035"
    "\u3038-\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fd-\u30ff\u3131-\u318e\u31f0-\u321e\u3260-\u327e"
    "\u32d0-\u32fe\u3300-\u3357\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7c6\ud7cb-\ud7fb"
    "\uf900-\ufa6d\ufa70-\ufad9\uff66-\uff6f\uff71-\uff9d\uffa0-\uffbe\uffc2-\uffc7\uffca-\uffcf\uffd2-\uffd7"
    "\uffda-\uffdc\U00016fe2-\U00016fe3\U00016ff0-\U00016ff1\U0001aff0-\U0001affe\U0001b000-\U0001b167"
    "\U0001f200\U00020000-\U0003fffd"
)
CJK = re.compile(f"[{_CJK}]")
"""One Han, Hiragana, Katakana or Hangul character."""

HAN = re.compile(
    "[\u2e80-\u2e99\u2e9b-\u2ef3\u2f00-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufa6d\ufa70-\ufad9\U00016ff0-\U00016ff1\U00020000-\U0003fffd]"
)
"""One Han character."""

ASCII_WORDS = re.compile(r"[0-9A-Za-z_]+")
"""The runs between which RE2 sees word boundaries."""

# Characters outside ASCII that case-fold to an ASCII letter: long s and the Kelvin sign.
_TO_ASCII = ("\u017f", "\u212a")
_MARKS = frozenset({"Mn", "Mc"})
_NUMBERS = frozenset({"Nd", "Nl", "No"})
# Marks that are not alphabetic although they have no combining class: Thai and Lao signs.
_SIGNS = frozenset("\u0e47\u0e4c\u0e4e\u0ecc\u0ece")
_FIRST_MARK, _LAST_MARK = "\u0900", "\u1cff"


def lower(text: str) -> str:
    """Return *text* lower-cased rune by rune, as Go does: no final sigma, a dotted capital I becomes i."""
    if text.isascii():
        return text.lower()
    return text.replace("\u03a3", "\u03c3").replace("\u0130", "i").lower()


def folds_to_ascii(text: str) -> bool:
    """Tell whether *text* holds a character that is no ASCII letter but equals one when case is ignored."""
    return not text.isascii() and any(char in text for char in _TO_ASCII)


def is_letter_or_digit(char: str) -> bool:
    """Tell whether *char* is a Unicode letter or decimal digit."""
    return char.isalpha() or char.isdecimal()


def is_alphanumeric(char: str) -> bool:
    """Tell whether *char* is alphabetic, vowel signs of Indic scripts included, or numeric (Rust's rule)."""
    if char.isalpha() or unicodedata.category(char) in _NUMBERS:
        return True
    if unicodedata.category(char) not in _MARKS or char in _SIGNS:
        return False
    combining = unicodedata.combining(char)
    if _FIRST_MARK <= char <= _LAST_MARK:
        return combining == 0 or char == "\u0e3a" or "\u0e38" <= char <= "\u0e39"
    # The points of Hebrew and Arabic, whose classes run from 10 to 35.
    return 10 <= combining <= 35  # noqa: PLR2004


class Blanked(dict[int, int]):
    """A table for `str.translate` that keeps the characters of words and blanks all others."""

    def __init__(self, is_kept: Callable[[str], bool]) -> None:
        super().__init__()
        self._is_kept = is_kept

    def __missing__(self, code: int) -> int:
        kept = code if self._is_kept(chr(code)) else ord(" ")
        self[code] = kept
        return kept
