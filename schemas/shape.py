"""The one source of a record's shape: a frozen dataclass gives its Avro schema, packer and unpacker.

`Packer` turns a record into the plain dict that Avro libraries write, and back. Types:
str, int (long), float (double), bool, bytes, `Id16` (fixed 16), `X | None`, `tuple[X, ...]`,
and other dataclasses. A field's Avro name may differ: ``field(metadata={"avro": "name"})``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

R = TypeVar("R")
Convert = Callable[[Any], Any]

NAMESPACE = "signalbox"
_PRIMITIVES: Mapping[type, str] = {
    str: "string",
    int: "long",
    float: "double",
    bool: "boolean",
    bytes: "bytes",
}


@dataclass(frozen=True)
class Fixed:
    """An Avro fixed of *size* bytes."""

    size: int


Id16 = Annotated[bytes, Fixed(16)]
"""A 16-byte id, printed as 32 hex digits everywhere."""


def is_optional(hint: Any) -> bool:
    """Tell whether *hint* is ``X | None``."""
    return get_origin(hint) in (typing.Union, types.UnionType)


def strip_optional(hint: Any) -> Any:
    """Return the X of ``X | None``."""
    (inner,) = [h for h in get_args(hint) if h is not type(None)]
    return inner


def hints_of(cls: type) -> dict[str, Any]:
    """Return the type of each field of dataclass *cls*, by attribute name."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def avro_name(f: dataclasses.Field[Any]) -> str:
    """Return the name of a field as the schema has it."""
    return str(f.metadata.get("avro", f.name))


def avro_schema(cls: type, seen: set[str] | None = None) -> Any:
    """Return the Avro schema of dataclass *cls*; a type met again is a reference by name."""
    seen = set() if seen is None else seen
    name = f"{NAMESPACE}.{cls.__name__}"
    if name in seen:
        return name
    seen.add(name)
    hints = hints_of(cls)
    fields = []
    for f in dataclasses.fields(cls):
        entry: dict[str, Any] = {"name": avro_name(f), "type": _avro_type(hints[f.name], seen)}
        if f.default is not dataclasses.MISSING:
            entry["default"] = _avro_default(f.default)
        fields.append(entry)
    doc = (cls.__doc__ or "").split("\n", maxsplit=1)[0]
    return {"type": "record", "name": cls.__name__, "namespace": NAMESPACE, "doc": doc, "fields": fields}


def _avro_default(value: Any) -> Any:
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN has no JSON form
        message = "NaN cannot be an Avro default; leave the field without one"
        raise TypeError(message)
    if dataclasses.is_dataclass(value):
        return {avro_name(f): _avro_default(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _avro_type(hint: Any, seen: set[str]) -> Any:
    if get_origin(hint) is Annotated:
        size = get_args(hint)[1].size
        name = f"{NAMESPACE}.Id{size}"
        if name in seen:
            return name
        seen.add(name)
        return {"type": "fixed", "name": f"Id{size}", "namespace": NAMESPACE, "size": size}
    if is_optional(hint):
        return ["null", _avro_type(strip_optional(hint), seen)]
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _avro_type(get_args(hint)[0], seen)}
    if dataclasses.is_dataclass(hint):
        return avro_schema(typing.cast("type", hint), seen)
    return _PRIMITIVES[hint]


class Packer(Generic[R]):
    """Converts one record class to plain dicts and back, field conversions looked up once."""

    def __init__(self, cls: type[R]) -> None:
        self.cls = cls
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        hints = hints_of(cls)
        self._names = [avro_name(f) for f in fields]
        self._renamed = {avro_name(f): f.name for f in fields if avro_name(f) != f.name}
        self._read = attrgetter(*[f.name for f in fields])
        self._single = len(fields) == 1
        self._out: list[tuple[str, Convert]] = []
        self._in: list[tuple[str, Convert]] = []
        for f in fields:
            out, back = _converters(hints[f.name])
            if out is not None:
                self._out.append((avro_name(f), out))
            if back is not None:
                self._in.append((avro_name(f), back))

    def pack(self, record: R) -> dict[str, Any]:
        """Return *record* as the dict that an Avro writer takes."""
        values = self._read(record)
        packed = dict(zip(self._names, (values,) if self._single else values, strict=True))
        for name, convert in self._out:
            packed[name] = convert(packed[name])
        return packed

    def unpack(self, packed: dict[str, Any]) -> R:
        """Return the record that *packed* (an Avro reader's dict, consumed) stands for."""
        for name, convert in self._in:
            packed[name] = convert(packed[name])
        for name, attribute in self._renamed.items():
            packed[attribute] = packed.pop(name)
        return self.cls(**packed)


def _converters(hint: Any) -> tuple[Convert | None, Convert | None]:
    """Return how a value of type *hint* is packed and unpacked; None where it passes as it is."""
    if get_origin(hint) is Annotated:
        return None, None
    if is_optional(hint):
        out, back = _converters(strip_optional(hint))
        return _or_none(out), _or_none(back)
    if get_origin(hint) is tuple:
        out, back = _converters(get_args(hint)[0])
        return _each_list(out), _each_tuple(back)
    if dataclasses.is_dataclass(hint):
        packer: Packer[Any] = Packer(typing.cast("type", hint))
        return packer.pack, packer.unpack
    return None, None


def _or_none(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda value: None if value is None else convert(value)


def _each_list(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda values: [convert(v) for v in values]


def _each_tuple(convert: Convert | None) -> Convert:
    return tuple if convert is None else lambda values: tuple([convert(v) for v in values])
