"""A registry of named plugins, filled by importing the files of one folder and entry points.

Loading is asked for by a composition root, never done at import.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class DuplicatePluginError(Exception):
    """Two plugins claim the same type name."""


class PluginConfig(BaseModel):
    """Base of every plugin's configuration; the literal ``type`` selects the plugin."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


T = TypeVar("T", bound=PluginConfig)


class Registry(Generic[T]):
    """Plugin configurations of one kind by type name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def __call__(self, cls: type[T]) -> type[T]:
        """Register *cls* under its ``type`` literal; raises `DuplicatePluginError`."""
        (name,) = get_args(cls.model_fields["type"].annotation)
        if name in self._classes:
            message = f"{self.kind} {name!r} is registered twice; rename one of the two"
            raise DuplicatePluginError(message)
        self._classes[name] = cls
        return cls

    def __iter__(self) -> Iterator[tuple[str, type[T]]]:
        """Iterate over (type name, class), by name."""
        return iter(sorted(self._classes.items()))

    def __getitem__(self, name: str) -> type[T]:
        """Return the class registered as *name*; raises `KeyError`."""
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether *name* is registered."""
        return name in self._classes

    def load(self, package: ModuleType) -> None:
        """Import every module of *package* and every installed entry point of the kind."""
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
        for entry in entry_points(group=f"signalbox.{self.kind}"):
            entry.load()

    def adapter(self) -> TypeAdapter[list[T]]:
        """Return a validator for a list of this kind, discriminated by ``type``."""
        union: Any = Union[tuple(self._classes.values())]  # noqa: UP007 - built at run time
        return TypeAdapter(list[Annotated[union, Field(discriminator="type")]])
