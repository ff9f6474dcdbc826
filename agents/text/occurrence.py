"""How often something occurs in a text, and in which order: hits do not overlap."""

from __future__ import annotations

import re
from typing import Any

from agents.text.fold import CJK, is_letter_or_digit

_ASCII_UNITS = re.compile(r"[0-9A-Za-z]+")


def units(text: str) -> int:
    """Return how many words *text* has in any language: runs of letters and digits, CJK one by one."""
    if text.isascii():
        return len(_ASCII_UNITS.findall(text))
    count, in_word = 0, False
    for char in text:
        if char.isascii():
            inside = char.isalnum()
        elif CJK.match(char):
            count, inside, in_word = count + 1, False, False
        else:
            inside = is_letter_or_digit(char)
        if inside and not in_word:
            count += 1
        in_word = inside
    return count


def count_pattern(pattern: Any, encoded: bytes) -> int:  # noqa: ANN401 - re2 ships no types
    """Return how often the compiled *pattern* matches; an empty match right after another does not count."""
    count, last = 0, -1
    for match in pattern.finditer(encoded):
        start, end = match.span()
        if start != end or start != last:
            # RE2 works on bytes, but an empty match inside a character is none.
            if start == end and start < len(encoded) and encoded[start] & 0xC0 == 0x80:  # noqa: PLR2004
                continue
            count += 1
        last = end
    return count


def count_keyword(text: str, keyword: str) -> int:
    """Return how often *keyword* stands free in *text*: no letter or digit, save CJK, touches it.

    A keyword that holds a CJK character need not stand free.
    """
    if not keyword:
        return 0
    if CJK.search(keyword):
        return text.count(keyword)
    count, start = 0, text.find(keyword)
    while start >= 0:
        end = start + len(keyword)
        count += not (start > 0 and _blocks(text[start - 1])) and not (end < len(text) and _blocks(text[end]))
        start = text.find(keyword, end)
    return count


def in_sequence(text: str, markers: tuple[str, ...]) -> bool:
    """Tell whether *markers* occur in *text* one after the other."""
    start = 0
    for marker in markers:
        found = text.find(marker, start)
        if found < 0:
            return False
        start = found + len(marker)
    return True


def _blocks(char: str) -> bool:
    return is_letter_or_digit(char) and not CJK.match(char)
