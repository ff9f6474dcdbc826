"""The one source of chance: a hash of who and why, so that every replay draws alike.

A draw is splitmix64 (Steele, Lea, Flood 2014) folded over u64 words: z = 0, then
z = splitmix64(z xor word) for salt, id high, id low, attempt, tag; unit = (z >> 11) * 2**-53.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

_MASK = (1 << 64) - 1


def splitmix64(x: int) -> int:
    """Return the splitmix64 output for state *x* (both u64)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@lru_cache(maxsize=1024)
def word_of(text: str) -> int:
    """Return *text* as a u64: the first 8 bytes, big-endian, of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def unit(salt: str, request_id: bytes, attempt: int, tag: str) -> float:
    """Return a number in [0, 1), uniform over request ids, the same for the same arguments."""
    words = (
        word_of(salt),
        int.from_bytes(request_id[:8], "big"),
        int.from_bytes(request_id[8:], "big"),
        attempt,
        word_of(tag),
    )
    z = 0
    for word in words:
        z = splitmix64(z ^ word)
    return (z >> 11) * 2.0**-53


def pick(propensities: Sequence[float], draw: float) -> int:
    """Return the index that *draw* falls on, cumulating in order; never one of probability 0."""
    total = 0.0
    last = 0
    for index, p in enumerate(propensities):
        if p <= 0.0:
            continue
        last = index
        total += p
        if draw < total:
            return index
    return last
