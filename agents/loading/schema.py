"""The JSON Schema of the configuration format, from the very shapes that the decoder reads by."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from agents.loading.decoding import COLLECTIONS, shape_of
from agents.signals import signal

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: Mapping[Any, list[str]] = {
    str: ["string", "number", "boolean", "null"],
    int: ["number", "null"],
    float: ["number", "null"],
    bool: ["boolean", "null"],
}


def schema_of(cls: type[BaseModel], title: str) -> dict[str, Any]:
    """Return the JSON Schema of documents that are decoded as *cls*; unknown keys are not valid."""
    writer = _Writer()
    root = writer.part(cls)
    return {"$schema": DRAFT, "title": title, "$ref": root["$ref"], "$defs": writer.parts}


class _Writer:
    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}

    def part(self, cls: type[BaseModel]) -> dict[str, Any]:
        """Return a reference to the schema of *cls*, which is added to the parts."""
        name = f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"
        if name not in self.parts:
            self.parts[name] = {}
            shape = shape_of(cls)
            properties = {key: self.kind(kind) for key, (_, kind) in shape.fields.items()}
            properties |= {old: properties[new] for old, new in shape.aliases.items()}
            properties |= {key: {} for key in (*sorted(shape.settings), *getattr(cls, "shorthand", ()))}
            first = (cls.__doc__ or "").strip().partition("\n")[0]
            self.parts[name] = {
                "description": first,
                "type": ["object", "null"],
                "properties": properties,
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}

    def kind(self, kind: Any) -> dict[str, Any]:  # noqa: ANN401, PLR0911 - one case a kind
        """Return the schema of values of *kind*."""
        origin = get_origin(kind)
        if kind == COLLECTIONS:
            return self._collections()
        if origin is Annotated:
            return self.kind(get_args(kind)[0])
        if origin in {Union, types.UnionType}:
            return self.kind(next(arg for arg in get_args(kind) if arg is not type(None)))
        if origin is tuple:
            return {"type": ["array", "null"], "items": self.kind(get_args(kind)[0])}
        if origin is Literal:
            return {"enum": [*get_args(kind), None]}
        if origin is not None:
            inner = get_args(kind)[1]
            values = {} if inner is Any else self.kind(inner)
            return {"type": ["object", "null"], "additionalProperties": values or True}
        return {"type": _SCALARS[kind]} if kind in _SCALARS else self.part(kind)

    def _collections(self) -> dict[str, Any]:
        lists = {cls.collection: {"type": ["array", "null"], "items": self.part(cls)} for _, cls in signal}
        return {"type": ["object", "null"], "properties": lists, "additionalProperties": False}
