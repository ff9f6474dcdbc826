"""Encoders and decoders written out per record class: the Avro body, without a walk over a schema.

A record class gives straight-line Python source, compiled once. Bytes are equal to fastavro's, which
tests hold; reading with *another* schema than today's stays with fastavro (`schemas.codec`).
Long, double, string, bytes, boolean, fixed, nullable, array and record are all there is.
"""

from __future__ import annotations

import dataclasses
import struct
import typing
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Annotated, Any, get_args, get_origin

from schemas.shape import hints_of, is_optional, strip_optional

Encode = Callable[[Any, Callable[[bytes], Any]], None]
Decode = Callable[[bytes, int], tuple[Any, int]]

_SMALL = 64
_SMALLS = tuple(bytes([2 * n]) for n in range(_SMALL))
_MORE = 0x80
_LONGEST = 64
_INT64 = 1 << 63
_UINT64 = 1 << 64
_NULL, _PRESENT = b"\x00", b"\x02"


class MalformedError(ValueError):
    """Bytes that are not the Avro body of the record."""


def _long(n: int) -> bytes:
    """Return *n* as a zigzag varint; raises OverflowError beyond 64 bits."""
    if not -_INT64 <= n < _INT64:
        message = f"{n} does not fit into 64 bits"
        raise OverflowError(message)
    z = (n << 1) ^ (n >> 63)
    out = bytearray()
    while z >= _MORE:
        out.append(z & 0x7F | _MORE)
        z >>= 7
    out.append(z)
    return bytes(out)


def _tail(data: bytes, at: int, first: int) -> tuple[int, int]:
    """Return the unsigned varint whose first byte was *first*, and where it ends."""
    value, shift = first & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < _MORE and value < _UINT64:
            return value, at
        if byte < _MORE or shift > _LONGEST:
            message = "a number of more than 64 bits"
            raise MalformedError(message)


def _count(data: bytes, at: int) -> tuple[int, int]:
    """Return how many items an array's block holds, and where they start."""
    z = data[at]
    at += 1
    if z & _MORE:
        z, at = _tail(data, at, z)
    if not z & 1:
        return z >> 1, at
    # A negative count is followed by the block's size in bytes, which is of no use here.
    size = data[at]
    at += 1
    if size & _MORE:
        _, at = _tail(data, at, size)
    return (z >> 1) + 1, at


@lru_cache(maxsize=1024)
def _doubles(n: int) -> struct.Struct:
    return struct.Struct(f"<{n}d")


def _fail(what: str) -> typing.NoReturn:
    raise MalformedError(what)


_GLOBALS: dict[str, Any] = {
    "SMALL": _SMALLS,
    "long": _long,
    "tail": _tail,
    "count": _count,
    "doubles": _doubles,
    "double": struct.Struct("<d"),
    "fail": _fail,
}


class _Source:
    """The source of one function under construction."""

    def __init__(self, head: str) -> None:
        self.lines = [head]
        self.names: dict[str, Any] = dict(_GLOBALS)
        self._count = 0

    def add(self, indent: int, *lines: str) -> None:
        self.lines += ["    " * indent + line for line in lines]

    def fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def known(self, cls: type) -> str:
        self.names[cls.__name__] = cls
        return cls.__name__

    def function(self, name: str) -> Any:
        # The source is made of a record class's field names alone, never of data.
        exec(compile("\n".join(self.lines), f"<compiled {name}>", "exec"), self.names)  # noqa: S102
        return self.names[name]


@cache
def encoder(cls: type) -> Encode:
    """Return a function that passes the Avro body of a *cls*, in pieces, to its second argument."""
    source = _Source("def encode(r, w):")
    _encode_record(source, 1, cls, "r")
    found: Encode = source.function("encode")
    return found


@cache
def decoder(cls: type) -> Decode:
    """Return a function from bytes and a position to the *cls* there and where it ends.

    It raises IndexError, UnicodeDecodeError, struct.error or `MalformedError` on anything else.
    """
    source = _Source("def decode(d, p):")
    name = _decode_record(source, 1, cls)
    source.add(1, f"return {name}, p")
    found: Decode = source.function("decode")
    return found


def _encode_record(source: _Source, indent: int, cls: type, value: str) -> None:
    for name, hint in hints_of(cls).items():
        field = source.fresh()
        source.add(indent, f"{field} = {value}.{name}")
        _encode_value(source, indent, hint, field)


def _encode_value(source: _Source, indent: int, hint: Any, v: str) -> None:
    if get_origin(hint) is Annotated:
        size = get_args(hint)[1].size
        source.add(indent, f"if len({v}) != {size}: fail('a fixed of another size')", f"w({v})")
    elif is_optional(hint):
        source.add(indent, f"if {v} is None: w({_NULL!r})", "else:", f"    w({_PRESENT!r})")
        _encode_value(source, indent + 1, strip_optional(hint), v)
    elif get_origin(hint) is tuple:
        _encode_array(source, indent, get_args(hint)[0], v)
    elif dataclasses.is_dataclass(hint):
        _encode_record(source, indent, typing.cast("type", hint), v)
    else:
        source.add(indent, *_ENCODE[hint](v))


def _sized(v: str) -> tuple[str, ...]:
    return (f"n = len({v})", "w(SMALL[n] if n < 64 else long(n))", f"w({v})")


_ENCODE: dict[Any, Callable[[str], tuple[str, ...]]] = {
    str: lambda v: (f"{v} = {v}.encode()", *_sized(v)),
    bytes: _sized,
    int: lambda v: (f"w(SMALL[{v}] if 0 <= {v} < 64 else long({v}))",),
    float: lambda v: (f"w(double.pack({v}))",),
    bool: lambda v: (f"w(b'\\x01' if {v} else b'\\x00')",),
}


def _encode_array(source: _Source, indent: int, item: Any, v: str) -> None:
    source.add(indent, f"if {v}:", f"    n = len({v})", "    w(SMALL[n] if n < 64 else long(n))")
    if item is float:
        source.add(indent + 1, f"w(doubles(n).pack(*{v}))")
    elif item is bool:
        source.add(indent + 1, f"w(bytes(map(bool, {v})))")
    else:
        each = source.fresh()
        source.add(indent + 1, f"for {each} in {v}:")
        _encode_value(source, indent + 2, item, each)
    source.add(indent, f"w({_NULL!r})")


def _decode_record(source: _Source, indent: int, cls: type) -> str:
    fields = [_decode_value(source, indent, hint) for hint in hints_of(cls).values()]
    value = source.fresh()
    source.add(indent, f"{value} = {source.known(cls)}({', '.join(fields)})")
    return value


def _decode_value(source: _Source, indent: int, hint: Any) -> str:
    v = source.fresh()
    if get_origin(hint) is Annotated:
        size = get_args(hint)[1].size
        source.add(
            indent, f"{v} = d[p:p + {size}]", f"if len({v}) != {size}: fail('cut off')", f"p += {size}"
        )
    elif is_optional(hint):
        source.add(indent, "n = d[p]", "p += 1", f"if n == 0: {v} = None", "elif n == 2:")
        inner = _decode_value(source, indent + 1, strip_optional(hint))
        source.add(indent, f"    {v} = {inner}", "else: fail('no branch of the union')")
    elif get_origin(hint) is tuple:
        _decode_array(source, indent, get_args(hint)[0], v)
    elif dataclasses.is_dataclass(hint):
        return _decode_record(source, indent, typing.cast("type", hint))
    else:
        source.add(indent, *_DECODE[hint](v))
    return v


_NUMBER = ("n = d[p]", "p += 1", "if n & 0x80: n, p = tail(d, p, n)")
_SLICE = (*_NUMBER, "q = p + (n >> 1)", "if n & 1 or q > len(d): fail('cut off')")

_DECODE: dict[Any, Callable[[str], tuple[str, ...]]] = {
    str: lambda v: (*_SLICE, f"{v} = d[p:q].decode()", "p = q"),
    bytes: lambda v: (*_SLICE, f"{v} = d[p:q]", "p = q"),
    int: lambda v: (*_NUMBER, f"{v} = (n >> 1) ^ -(n & 1)"),
    float: lambda v: (f"({v},) = double.unpack_from(d, p)", "p += 8"),
    bool: lambda v: (f"{v} = d[p] != 0", "p += 1"),
}


def _decode_array(source: _Source, indent: int, item: Any, v: str) -> None:
    """Most arrays are one block; what follows it is a zero, or rarely another block."""
    left, each = source.fresh(), source.fresh()
    source.add(indent, f"{v} = ()", f"{left} = d[p]", f"if {left}:", f"    {left}, p = count(d, p)")
    source.add(indent, f"    while {left}:")
    if item is float:
        source.add(
            indent + 2, f"{v} += doubles({left}).unpack_from(d, p) if {left} < len(d) else fail('cut off')"
        )
        source.add(indent + 2, f"p += 8 * {left}")
    elif item is bool:
        source.add(indent + 2, f"if p + {left} > len(d): fail('cut off')")
        source.add(indent + 2, f"{v} += tuple(map(bool, d[p:p + {left}]))", f"p += {left}")
    else:
        source.add(indent + 2, f"{each} = []", f"for _ in range({left}):")
        inner = _decode_value(source, indent + 3, item)
        source.add(indent + 3, f"{each}.append({inner})")
        source.add(indent + 2, f"{v} += tuple({each})")
    source.add(indent + 2, f"{left}, p = count(d, p)")
    source.add(indent, "else: p += 1")
