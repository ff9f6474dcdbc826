"""A configuration rewritten so that it does what it says, its comments and layout kept."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from agents.complaints import ANY_OF, Path
from agents.errors import ConfigError
from agents.loading.findings import Finding

_PATTERNS = frozenset({"keywords", "pattern", "sequences"})
_UNBRACED = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_BARE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_INDENTED_LIST = re.compile(r"^( *)[^ #\n-][^\n]*:\n\1  - ", re.MULTILINE)
_WIDTH = 4096


def modernized(text: str, found: Sequence[Finding], where: str) -> str:
    """Return *text* with every change that *found* propose made; raises `ConfigError`."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.allow_duplicate_keys = True
    yaml.width = _WIDTH
    if _INDENTED_LIST.search(text):
        yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.version = (1, 1)
    try:
        document = next(iter(yaml.load_all(text)), None)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: cannot be rewritten: {error}") from None
    changes = dict(change for each in found for change in each.fix)
    if ("substitution",) in changes:
        _explicit(document, ())
    for path, value in sorted(changes.items(), key=lambda change: -len(change[0])):
        _set(document, path, value)
    yaml.version = None
    yaml.explicit_start = False
    out = io.StringIO()
    yaml.dump(document, out)
    return re.sub(r"\A%YAML[^\n]*\n---\n?", "", out.getvalue())


def _set(document: Any, path: Path, value: object) -> None:  # noqa: ANN401 - a YAML document
    """Set *value* at *path*, None removes the key; what is not there any more is left alone."""
    place: Any = document
    for key in path[:-1]:
        if isinstance(place, dict) and key not in place:
            place[key] = {}
        try:
            place = place[key]
        except (KeyError, IndexError, TypeError):
            return
    if value is ANY_OF:
        place[path[-1]] = [{"operator": "OR", "conditions": place[path[-1]]}]
    elif value is None:
        place.pop(path[-1], None)
    elif isinstance(place, dict | list):
        place[path[-1]] = _quoted(value)  # type: ignore[index] # an index for a list, as it was read


def _quoted(value: object) -> object:
    """Return *value* as it is to be dumped: quoted where YAML 1.1 would read another type."""
    plain = isinstance(value, str) and re.fullmatch(r"[a-z_]{4,}|[A-Z_]{4,}", value) is not None
    words = {"true", "null", "false", "TRUE", "NULL", "FALSE"}
    if isinstance(value, str) and (not plain or value in words):
        return SingleQuotedScalarString(value)
    return value


def _explicit(value: Any, path: Path) -> Any:  # noqa: ANN401 - a YAML document
    """Write references so that they mean the same under ``substitution: explicit``, patterns left alone."""
    if isinstance(value, dict):
        for key in value:
            value[key] = _explicit(value[key], (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            value[index] = _explicit(inner, (*path, index))
    elif isinstance(value, str) and "$" in value:
        text = _BARE.sub(r"${\1:-}", str(value))
        if not _PATTERNS & {key for key in path if isinstance(key, str)}:
            text = _UNBRACED.sub(r"${\1:-}", text.replace("$$", "\0")).replace("\0", "$$")
        return value if text == value else SingleQuotedScalarString(text)
    return value
