"""Records of ours, spoiled in one of many ways; and what the reference library says of the outcome."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence

from schemas import reference
from schemas.codec import Codec, UndecodableError

Spoil = Callable[[random.Random, bytes, Sequence[bytes]], bytes | None]
_CODEC = Codec()
_HEAD = struct.Struct(">BI")
_LEAST = 6


def _flip(rng: random.Random, good: bytes, _others: Sequence[bytes]) -> bytes:
    """Turn one to four bits over."""
    data = bytearray(good)
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _length(rng: random.Random, good: bytes, _others: Sequence[bytes]) -> bytes:
    """Put a huge length where some field begins."""
    at = rng.randrange(_LEAST, len(good))
    return good[:at] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"[: rng.randint(2, 9)] + good[at + 1 :]


SPOILS: Mapping[str, Spoil] = {
    "flip": _flip,
    "length": _length,
    "cut": lambda rng, good, _: good[: rng.randrange(len(good))],
    "extend": lambda rng, good, _: good + rng.randbytes(rng.randint(1, 40)),
    "magic": lambda rng, good, _: bytes([rng.randint(1, 255)]) + good[1:],
    "schema": lambda rng, good, _: _HEAD.pack(0, rng.randint(10_000, 2**32 - 1)) + good[_HEAD.size :],
    "other": lambda rng, _good, others: rng.choice(others),
    "noise": lambda rng, _good, _others: rng.randbytes(rng.randint(1, 200)),
    "empty": lambda _rng, _good, _others: b"",
    "null": lambda _rng, _good, _others: None,
}
"""How a record is spoiled, by name."""


def readable(value: bytes | None, accepted: type) -> bool:
    """Return whether the reference library, or the one that hosts use, reads an *accepted* record.

    The latter takes integers beyond 64 bits, which the former refuses.
    """
    return any(_is_read(decode, value, accepted) for decode in (reference.decode, _CODEC.decode))


def _is_read(decode: Callable[[bytes], object], value: bytes | None, accepted: type) -> bool:
    if value is None:
        return False
    try:
        return isinstance(decode(value), accepted)
    except UndecodableError:
        return False


def spoiled(
    rng: random.Random, good: bytes, others: Sequence[bytes], accepted: type
) -> tuple[str, bytes | None]:
    """Return how *good* was spoiled, and what became of it: never an *accepted* record.

    What a spoiled record still says when it can be read is somebody's statement; here it is cut instead.
    """
    name = rng.choice(tuple(SPOILS))
    value = SPOILS[name](rng, good, others)
    if readable(value, accepted):
        return "cut", good[: rng.randrange(len(good))]
    return name, value
