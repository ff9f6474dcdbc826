"""The gate that keeps old logs readable: current schemas against the committed history.

FULL_TRANSITIVE: each schema must read what every committed version of its record wrote, and each
of those must read what it writes. So a field may come or go only with a default, and nothing else
may change. Run as ``python -m schemas.compatibility``; it exits 1 on a break once the lock file
says "v1", and only reports before. `schemas.generate` adds each schema that gets an id to the history;
``--record`` adds today's that are not in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from schemas.generate import FOLDER, fingerprint_of

HISTORY = FOLDER / "history"

Names = dict[str, Any]


def breaks(one: Any, other: Any, where: str = "") -> list[str]:
    """Return what keeps the schemas *one* and *other* from reading each other; empty if nothing."""
    return list(_breaks(one, {}, other, {}, where or str(one.get("name", "schema"))))


def _breaks(one: Any, ones: Names, other: Any, others: Names, where: str) -> Iterator[str]:
    one, other = _resolved(one, ones), _resolved(other, others)
    kind, other_kind = _kind(one), _kind(other)
    if kind != other_kind:
        yield f"{where}: {kind} became {other_kind}"
    elif _full_name(one) != _full_name(other):
        yield f"{where}: {_full_name(one)} was renamed {_full_name(other)}"
    elif kind == "record":
        yield from _record_breaks(one, ones, other, others, where)
    elif kind == "array":
        yield from _breaks(one["items"], ones, other["items"], others, f"{where}[]")
    elif kind == "union" and len(one) != len(other):
        yield f"{where}: a union of {len(one)} became one of {len(other)}"
    elif kind == "union":
        for branch, other_branch in zip(one, other, strict=True):
            yield from _breaks(branch, ones, other_branch, others, where)
    elif kind == "fixed" and one["size"] != other["size"]:
        yield f"{where}: fixed of {one['size']} bytes became one of {other['size']}"


def _record_breaks(one: Any, ones: Names, other: Any, others: Names, where: str) -> Iterator[str]:
    fields = {field["name"]: field for field in one["fields"]}
    other_fields = {field["name"]: field for field in other["fields"]}
    for name, field in fields.items():
        if name in other_fields:
            yield from _breaks(field["type"], ones, other_fields[name]["type"], others, f"{where}.{name}")
        else:
            # A later field may refer to a type that this one declares.
            _declare(field["type"], ones)
            if "default" not in field:
                yield f"{where}.{name}: went without having had a default"
    for name, field in other_fields.items():
        if name not in fields:
            _declare(field["type"], others)
            if "default" not in field:
                yield f"{where}.{name}: came without a default"


def _resolved(schema: Any, names: Names) -> Any:
    if isinstance(schema, str) and schema in names:
        return names[schema]
    if isinstance(schema, dict) and "name" in schema:
        names[_full_name(schema)] = schema
    return schema


def _declare(schema: Any, names: Names) -> None:
    if isinstance(schema, list):
        for branch in schema:
            _declare(branch, names)
    elif isinstance(schema, dict):
        _resolved(schema, names)
        _declare(schema.get("items"), names)
        for field in schema.get("fields", ()):
            _declare(field["type"], names)


def _full_name(schema: Any) -> str:
    named = isinstance(schema, dict) and "name" in schema
    return f"{schema.get('namespace', '')}.{schema['name']}" if named else ""


def _kind(schema: Any) -> str:
    """Return the type of a schema; records are made of those that `schemas.shape` knows, no others."""
    if isinstance(schema, list):
        return "union"
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def current() -> dict[str, Any]:
    """Return the committed schemas by record name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.avsc"))}


def history(folder: Path = HISTORY) -> dict[str, dict[str, Any]]:
    """Return record name -> version file -> schema, as *folder* holds them."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*.avsc")):
        found.setdefault(path.parent.name, {})[path.name] = json.loads(path.read_text())
    return found


def findings(schemas: Mapping[str, Any], versions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return every break between *schemas* and any of the *versions* of their record."""
    found = [
        f"{record}: in the history, but no longer a record" for record in versions if record not in schemas
    ]
    for record, past in versions.items():
        for version, schema in past.items():
            if record in schemas:
                found += [f"{record}/{version}: {text}" for text in breaks(schema, schemas[record], record)]
    return found


def record_history(folder: Path = HISTORY) -> list[Path]:
    """Add each current schema to *folder* as the next version unless it is there; return what was written."""
    written = []
    past = history(folder)
    for record, schema in current().items():
        versions = past.get(record, {})
        if fingerprint_of(json.dumps(schema)) in {fingerprint_of(json.dumps(v)) for v in versions.values()}:
            continue
        path = folder / record / f"{len(versions) + 1:04d}.avsc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema, indent=2) + "\n")
        written.append(path)
    return written


def exit_code(found: list[str], stability: str) -> int:
    """Return 1 for a break of schemas that were declared stable, else 0."""
    return 1 if found and stability != "v0" else 0


def main(arguments: list[str]) -> int:
    """Report what breaks, or with ``--record`` add to the history; return the exit code."""
    if "--record" in arguments:
        sys.stdout.write("".join(f"{path}\n" for path in record_history()))
        return 0
    found = findings(current(), history())
    sys.stdout.write("".join(f"{text}\n" for text in found))
    return exit_code(found, json.loads((FOLDER / "lock.json").read_text())["stability"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
