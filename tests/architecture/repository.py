"""The repository as the architecture tests see it: its root, its rooms and its parsed Python files."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("schemas", "agents", "streams", "replay", "infra", "triton_models")


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file of the repository."""

    path: Path
    text: str
    tree: ast.Module

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def room(self) -> str:
        """The top folder that the file belongs to, or its own name at the root."""
        return self.path.relative_to(ROOT).parts[0]

    @property
    def module(self) -> str:
        """The dotted name under which the file is imported."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def imports(self) -> Iterator[str]:
        """Yield the dotted names that the file imports, wherever in it."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module


def ignored(name: str) -> bool:
    """Tell whether .gitignore names *name* at the root of the repository."""
    lines = (ROOT / ".gitignore").read_text().splitlines()
    patterns = (line.strip("/") for line in lines if line and not line.startswith("#"))
    return name == ".git" or any(fnmatch(name, pattern) for pattern in patterns)


@cache
def sources() -> tuple[Source, ...]:
    """Return every Python file of the rooms, of the tests and at the root, parsed."""
    paths = [*ROOT.glob("*.py")]
    for room in (*ROOMS, "tests"):
        paths += sorted((ROOT / room).rglob("*.py"))
    return tuple(_parse(path) for path in paths if not any(map(ignored, path.relative_to(ROOT).parts)))


def _parse(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path, text, ast.parse(text, str(path)))
