"""Plain values to what the parts of a policy take, by the fields of their classes.

As the original decodes: unknown keys are noted and left out, an absent or null value is the default, a
number written where text is wanted becomes text, 1.5 becomes 1 where a whole number is wanted; a value of
another kind is a complaint.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from rapidfuzz import process

from agents.complaints import Complaint, Path
from agents.loading.scalars import written
from agents.loading.tree import Tree
from agents.registry import PluginConfig
from agents.signals import SignalConfig, signal

_CLOSE = 70.0
_SMALLEST, _GREATEST = -(1 << 63), (1 << 63) - 1
COLLECTIONS = "signals"
"""Stands for the type of ``routing.signals``: each collection has its own class."""
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Ignored:
    """A key that nothing here reads: unknown, or a setting that is no part of a policy."""

    path: Path
    suggestion: str = ""
    setting: bool = False


@dataclass(slots=True)
class Decoded:
    """What was found while decoding."""

    value: Any = None
    faults: list[Complaint] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    """Scalars that are no text and were written where text is wanted."""
    times: list[Path] = field(default_factory=list)
    """Texts that are written as a date and read as a time."""
    written_texts: set[str] = field(default_factory=set)
    """Every text that is written as text."""
    cut: list[Path] = field(default_factory=list)
    """Fractions that were cut off where a whole number is wanted."""
    aliases: list[tuple[Path, str]] = field(default_factory=list)
    """Keys of another dialect, and what they are called here."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """The keys of a part: what each is called in the class, and its type."""

    fields: Mapping[str, tuple[str, Any]]
    aliases: Mapping[str, str]
    settings: frozenset[str]


def decode(cls: type[BaseModel], tree: Tree) -> Decoded:
    """Return the values of *tree* as *cls* takes them, and what was met on the way."""
    decoder = _Decoder(tree)
    found = decoder.part(cls, tree.value, ())
    decoder.out.value = {} if found is _MISSING else found
    return decoder.out


@cache
def shape_of(cls: type[BaseModel]) -> _Shape:
    """Return the keys that *cls* reads in a file."""
    spelled: Mapping[str, str] = getattr(cls, "written_as", {})
    fields = {}
    for name, info in cls.model_fields.items():
        if issubclass(cls, PluginConfig) and name == "type":
            continue
        annotation: Any = info.annotation
        if any(getattr(meta, "func", None) is not None for meta in info.metadata):
            annotation = COLLECTIONS if cls.__name__ == "Routing" and name == "signals" else annotation
        fields[spelled.get(name, info.alias or name)] = (info.alias or name, annotation)
    return _Shape(fields, getattr(cls, "aliases", {}), frozenset(getattr(cls, "settings", ())))


class _Decoder:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.out = Decoded()

    def part(self, cls: type[BaseModel], value: Any, path: Path) -> Any:  # noqa: ANN401 - plain values
        """Return *value* as keyword arguments of *cls*, `_MISSING` if it is no mapping."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            return self._fault(path, "a mapping is needed here")
        shape, found = shape_of(cls), {}
        for key, inner in value.items():
            renamed = shape.aliases.get(key)
            if renamed is not None:
                self.out.aliases.append(((*path, key), renamed))
            entry = shape.fields.get(renamed or key)
            if entry is None:
                self._ignore(shape, cls, key, value, path)
            elif not (renamed is not None and renamed in value):
                taken = self._typed(entry[1], inner, (*path, key))
                if taken is not _MISSING:
                    found[entry[0]] = taken
        found |= {k: value[k] for k in getattr(cls, "shorthand", ()) if k in value}
        return found

    def _ignore(
        self, shape: _Shape, cls: type[BaseModel], key: str, value: Mapping[str, Any], path: Path
    ) -> None:
        if key in getattr(cls, "shorthand", ()):
            return
        if key in shape.settings:
            self.out.ignored.append(Ignored((*path, key), setting=True))
            return
        candidates = [name for name in (*shape.fields, *shape.settings) if name not in value]
        best = process.extractOne(key, candidates, score_cutoff=_CLOSE)
        self.out.ignored.append(Ignored((*path, key), best[0] if best else ""))

    def _fault(self, path: Path, message: str) -> Any:  # noqa: ANN401 - the marker
        self.out.faults.append(Complaint(path, message))
        return _MISSING

    def _typed(self, kind: Any, value: Any, path: Path) -> Any:  # noqa: ANN401, PLR0911 - one case a kind
        """Return *value* as *kind*, `_MISSING` where the default stands or a complaint was made."""
        if kind == COLLECTIONS:
            return self._signals(value, path)
        origin = get_origin(kind)
        if origin is Annotated:
            return self._typed(get_args(kind)[0], value, path)
        if origin in {Union, types.UnionType}:
            [inner] = [arg for arg in get_args(kind) if arg is not type(None)]
            return _MISSING if value is None else self._typed(inner, value, path)
        if value is None:
            return _MISSING
        if origin is tuple:
            return self._list(get_args(kind)[0], value, path)
        if origin is Literal:
            return self._choice(get_args(kind), value, path)
        if origin is not None:
            return self._mapping(get_args(kind)[1], value, path)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return self.part(kind, value, path)
        return self._scalar(kind, value, path)

    def _list(self, kind: Any, value: Any, path: Path) -> Any:  # noqa: ANN401 - plain values
        if not isinstance(value, list):
            return self._fault(path, "a list is needed here")
        zero = "" if kind is str else {}
        found = [
            zero if item is None else self._typed(kind, item, (*path, index))
            for index, item in enumerate(value)
        ]
        return [item for item in found if item is not _MISSING]

    def _mapping(self, kind: Any, value: Any, path: Path) -> Any:  # noqa: ANN401 - plain values
        if not isinstance(value, dict):
            return self._fault(path, "a mapping is needed here")
        if kind is Any:
            return self._plain(value, path)
        found = {key: self._typed(kind, inner, (*path, key)) for key, inner in value.items()}
        return {key: inner for key, inner in found.items() if inner is not _MISSING}

    def _plain(self, value: Any, path: Path) -> Any:  # noqa: ANN401 - plain values
        """Return *value* as it is, its numbers checked to be finite."""
        if isinstance(value, dict):
            found = {key: self._plain(inner, (*path, key)) for key, inner in value.items()}
            return {key: inner for key, inner in found.items() if inner is not _MISSING}
        if isinstance(value, list):
            return [v for v in (self._plain(v, (*path, i)) for i, v in enumerate(value)) if v is not _MISSING]
        if isinstance(value, float) and not math.isfinite(value):
            return self._fault(path, "the number is not finite")
        return value

    def _choice(self, allowed: tuple[Any, ...], value: Any, path: Path) -> Any:  # noqa: ANN401 - plain values
        if value in allowed and not isinstance(value, bool):
            return value
        return self._fault(path, f"one of {', '.join(map(str, allowed))} is needed here")

    def _scalar(self, kind: Any, value: Any, path: Path) -> Any:  # noqa: ANN401 - plain values
        if isinstance(value, dict | list):
            return self._fault(path, f"{_named(kind)} is needed here, not a list or a mapping")
        if kind is str:
            return self._text(value, path)
        if kind is bool:
            return value if isinstance(value, bool) else self._fault(path, "true or false is needed here")
        if isinstance(value, bool | str):
            return self._fault(path, f"{_named(kind)} is needed here")
        if not math.isfinite(value):
            return self._fault(path, "the number is not finite")
        return self._whole(value, path) if kind is int else float(value)

    def _text(self, value: bool | float | str, path: Path) -> str:  # noqa: FBT001 - a value, not a switch
        if isinstance(value, str):
            (
                self.out.times.append(path)
                if path in self._tree.rewritten
                else self.out.written_texts.add(value)
            )
            return value
        self.out.texts.append(path)
        if path not in self._tree.rewritten:
            self.out.written_texts.add(written(value))
        return written(value)

    def _whole(self, value: float, path: Path) -> Any:  # noqa: ANN401 - the marker
        number = int(value)
        if number != value:
            self.out.cut.append(path)
        if not _SMALLEST <= number <= _GREATEST:
            return self._fault(path, "the number is too large")
        return number

    def _signals(self, value: Any, path: Path) -> Any:  # noqa: ANN401 - plain values
        """Return the collections of *value*, each as a list of what its class takes."""
        if value is None:
            return _MISSING
        if not isinstance(value, dict):
            return self._fault(path, "a mapping of collections is needed here")
        classes: dict[str, type[SignalConfig]] = {cls.collection: cls for _, cls in signal}
        shape = _Shape({name: (name, cls) for name, cls in classes.items()}, {}, frozenset())
        found = {}
        for name, entries in value.items():
            if name not in classes:
                self._ignore(shape, SignalConfig, name, value, path)
                continue
            taken = _MISSING if entries is None else self._list(classes[name], entries, (*path, name))
            if taken is not _MISSING:
                found[name] = taken
        return found


def _named(kind: Any) -> str:  # noqa: ANN401 - a type
    return {str: "a text", int: "a whole number", float: "a number"}.get(kind, "another value")
