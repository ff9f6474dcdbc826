"""The part of a long text that semantic signals see: its head, its middle and its tail."""

from __future__ import annotations

_LIMIT = 2048
_PART = _LIMIT // 3
# What the original puts where it leaves something out; a detector and an event rule see these words too.
_OMITTED = "\n... [content sampled for routing signal evaluation] ...\n"


def window(text: str) -> str:
    """Return *text* if it has at most 2,048 characters, else samples of it with the marker between."""
    if len(text) <= _LIMIT:
        return text
    middle = len(text) // 2 - _PART // 2
    tail = _LIMIT - 2 * _PART
    return f"{text[:_PART]}{_OMITTED}{text[middle : middle + _PART]}{_OMITTED}{text[-tail:]}"
