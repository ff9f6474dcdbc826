"""YAML text to plain values, each with its place in the file; the first document only.

Values are as yaml.v2 has them after the original's two passes: of equal keys the last one counts, keys
that are no text are dropped below the top, a merge key overwrites what stands before it. Bounded: a text
that is too long, nested too deeply or multiplied by aliases is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from agents.complaints import Path
from agents.errors import ConfigError
from agents.loading.scalars import BadScalarError, Value, resolve, written
from agents.loading.substitution import Substituted, substitute

Place = tuple[int, int]
"""Line and column, from 1."""

_LONGEST_TEXT = 4_000_000
_MOST_NODES = 300_000
_DEEPEST = 100
_BAD_TEXT = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)


@dataclass(slots=True)
class _Node:
    kind: str
    place: Place
    text: str = ""
    plain: bool = False
    tag: str | None = None
    children: list[_Node] = field(default_factory=list)
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Note:
    """Something about a value that its text alone does not show: what happened to it, and how it was."""

    kind: str
    path: Path
    text: str = ""


@dataclass(slots=True)
class Tree:
    """The values of a document, where each stands, and what happened to them on the way."""

    where: str
    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    rewritten: dict[Path, tuple[str, str]] = field(default_factory=dict)
    """Path -> how a scalar is written and how it reads as text, where the two differ."""

    def place(self, path: Path) -> Place:
        """Return where *path* stands: its own place, else that of the closest part around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return (1, 1)

    def at(self, path: Path) -> str:
        """Return file, line and column of *path*."""
        line, column = self.place(path)
        return f"{self.where}:{line}:{column}"

    def refuse(self, path: Path, message: str) -> ConfigError:
        """Return the error that says *message* of what stands at *path*."""
        dotted = ".".join(map(str, path))
        return ConfigError(f"{self.at(path)}: {dotted + ': ' if dotted else ''}{message}")


def read(text: str, where: str, environment: Mapping[str, str]) -> Tree:
    """Return the first document of YAML *text*; raises `ConfigError` with file, line and column."""
    tree = Tree(where)
    if len(text) > _LONGEST_TEXT:
        raise tree.refuse((), f"the file is longer than {_LONGEST_TEXT} characters")
    try:
        root = _Composer(where).compose(text, tree)
    except yaml.MarkedYAMLError as error:
        raise _syntax(where, error) from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise ConfigError(f"{where}:{line}:1: not valid YAML: {error}") from None
    except _BAD_TEXT as error:
        raise ConfigError(f"{where}:1:1: not valid YAML: {error}") from None
    if root is not None:
        tree.places[()] = root.place
        _Builder(tree, environment, explicit=_explicit(root)).build(root)
    return tree


def _syntax(where: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    place = f"{mark.line + 1}:{mark.column + 1}" if mark is not None else "1:1"
    return ConfigError(f"{where}:{place}: not valid YAML: {error.problem or error.context}")


def _explicit(root: _Node) -> bool:
    """Tell whether the document asks for our narrower substitution."""
    pairs = zip(root.children[::2], root.children[1::2], strict=True) if root.kind == "map" else ()
    return any(key.text == "substitution" and value.text == "explicit" for key, value in pairs)


class _Composer:
    """Events to nodes, without recursion; an alias is the anchored node itself."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._anchors: dict[str, _Node | None] = {}

    def compose(self, text: str, tree: Tree) -> _Node | None:
        """Return the root of the first document, None if there is none."""
        stack: list[tuple[_Node, str | None]] = []
        root: _Node | None = None
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            mark = event.start_mark
            place = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                tree.places[("---",)] = place
                tree.notes.append(Note("document", ("---",)))
                break
            if isinstance(event, yaml.CollectionEndEvent):
                node, anchor = stack.pop()
                root = self._closed(node, anchor, stack, root)
            elif isinstance(event, yaml.CollectionStartEvent):
                kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
                stack.append((_Node(kind, place), event.anchor))
                if event.anchor:
                    self._anchors[event.anchor] = None
                self._check_depth(len(stack), place)
            elif isinstance(event, yaml.ScalarEvent):
                node = _Node("scalar", place, event.value, event.implicit[0], event.tag)
                root = self._closed(node, event.anchor, stack, root)
            elif isinstance(event, yaml.AliasEvent):
                root = self._closed(self._aliased(event.anchor or "", place), None, stack, root)
        return root

    def _closed(
        self, node: _Node, anchor: str | None, stack: list[tuple[_Node, str | None]], root: _Node | None
    ) -> _Node:
        if anchor:
            self._anchors[anchor] = node
        if not stack:
            return node if root is None else root
        parent = stack[-1][0]
        parent.children.append(node)
        parent.weight += node.weight
        if parent.weight > _MOST_NODES:
            line, column = node.place
            raise ConfigError(f"{self._where}:{line}:{column}: aliases or size make it too large a document")
        return root if root is not None else stack[0][0]

    def _aliased(self, anchor: str, place: Place) -> _Node:
        at = f"{self._where}:{place[0]}:{place[1]}"
        if anchor not in self._anchors:
            raise ConfigError(f"{at}: unknown anchor {anchor!r}")
        found = self._anchors[anchor]
        if found is None:
            raise ConfigError(f"{at}: the value of anchor {anchor!r} contains itself")
        return found

    def _check_depth(self, depth: int, place: Place) -> None:
        if depth > _DEEPEST:
            raise ConfigError(f"{self._where}:{place[0]}:{place[1]}: nested deeper than {_DEEPEST}")


class _Builder:
    """Nodes to values, with substitution."""

    def __init__(self, tree: Tree, environment: Mapping[str, str], *, explicit: bool) -> None:
        self._tree = tree
        self._environment = environment
        self._explicit = explicit

    def build(self, root: _Node) -> None:
        """Fill in the tree."""
        self._tree.value = self._value(root, ())

    def _value(self, node: _Node, path: Path) -> Any:  # noqa: ANN401 - whatever the document holds
        self._tree.places[path] = node.place
        if node.kind == "list":
            return [self._value(child, (*path, index)) for index, child in enumerate(node.children)]
        if node.kind == "map":
            found: dict[str, Any] = {}
            for key, child, where in self._entries(node, path):
                found[key] = self._value(child, (*path, key))
                if child.kind == "scalar":
                    self._tree.places[(*path, key)] = where
            return found
        return self._scalar(node, path)

    def _entries(self, node: _Node, path: Path) -> Iterator[tuple[str, _Node, Place]]:
        """Iterate over what counts of a mapping: key, value and the key's place."""
        found: dict[str, tuple[_Node, Place]] = {}
        own: set[str] = set()
        for key, value in zip(node.children[::2], node.children[1::2], strict=True):
            if key.kind == "scalar" and key.text == "<<" and key.plain:
                found |= {k: (v, place) for k, v, place in self._merged(value, path)}
                continue
            name = self._key(key, path)
            if name is None:
                continue
            if name in own:
                self._tree.places[(*path, name)] = key.place
                self._tree.notes.append(Note("duplicate", (*path, name), str(found[name][1][0])))
            own.add(name)
            found[name] = (value, key.place)
        return iter([(name, value, place) for name, (value, place) in found.items()])

    def _merged(self, value: _Node, path: Path) -> list[tuple[str, _Node, Place]]:
        sources = [value] if value.kind == "map" else value.children[::-1] if value.kind == "list" else []
        if not sources or any(source.kind != "map" for source in sources):
            self._tree.places[path] = value.place
            raise self._tree.refuse(path, "a merge key takes a mapping or a list of mappings")
        return [entry for source in sources for entry in self._entries(source, path)]

    def _key(self, node: _Node, path: Path) -> str | None:
        if node.kind != "scalar":
            self._tree.places[path] = node.place
            raise self._tree.refuse(path, "a key is a text, not a list or a mapping")
        value = self._resolved(node, path)
        if isinstance(value, str) or not path:
            return node.text
        name = node.text or "~"
        self._tree.places[(*path, name)] = node.place
        self._tree.notes.append(Note("dropped", (*path, name), written(value) if value is not None else ""))
        return None

    def _resolved(self, node: _Node, path: Path) -> Value:
        try:
            return resolve(node.text, plain=node.plain, tag=node.tag)
        except BadScalarError as error:
            self._tree.places[path] = node.place
            raise self._tree.refuse(path, str(error)) from None

    def _scalar(self, node: _Node, path: Path) -> Value:
        value = self._resolved(node, path)
        if not isinstance(value, str):
            if value is not None and written(value) != node.text:
                self._tree.rewritten[path] = (node.text, written(value))
            return value
        if value != node.text and node.tag is None:
            self._tree.rewritten[path] = (node.text, value)
        return self._substituted(value, path)

    def _substituted(self, value: str, path: Path) -> str:
        found: Substituted = substitute(value, self._environment, explicit=self._explicit)
        if found.changed:
            self._tree.notes.append(Note("substituted", path, value))
        for name in found.unset:
            if self._explicit:
                raise self._tree.refuse(
                    path, f"the environment has no variable {name}, and no default is given"
                )
            self._tree.notes.append(Note("unset", path, name))
        return found.text
