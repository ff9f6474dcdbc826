"""Write the committed Avro text and its lock file from the record classes.

Run as ``python -m schemas.generate``; ``--check`` writes nothing and exits 1 if anything differs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fastavro.schema

from schemas.shape import avro_schema
from schemas.topics import RECORDS

FOLDER = Path(__file__).parent / "avro"
STABILITY = "v1"
"""v1: a schema that changes gets a new id and the old one stays; `schemas.compatibility` says what may."""
LOCK = "lock.json"
HISTORY = "history"


def rendered(lock: Mapping[str, Any] | None = None, classes: Sequence[type] = RECORDS) -> dict[str, str]:
    """Return file name -> text of everything that is generated from *classes*, ids as *lock* gave them.

    Every schema that ever had an id is kept below `history`; of a record the highest id is today's.
    """
    known: dict[str, dict[str, str]] = dict((_locked() if lock is None else lock).get("ids", {}))
    files: dict[str, str] = {}
    for cls in classes:
        name, text = cls.__name__, json.dumps(avro_schema(cls), indent=2) + "\n"
        files[f"{name}.avsc"] = text
        fingerprint = fingerprint_of(text)
        ids = [key for key, row in known.items() if row["record"] == name]
        if ids and known[ids[-1]]["fingerprint"] == fingerprint:
            continue
        for version, key in enumerate(ids, start=1):
            known[key] = {**known[key], "file": f"{HISTORY}/{name}/{version:04d}.avsc"}
        new = str(max((int(key) for key in known), default=0) + 1)
        known[new] = {"record": name, "file": f"{name}.avsc", "fingerprint": fingerprint}
        files[f"{HISTORY}/{name}/{len(ids) + 1:04d}.avsc"] = text
    files[LOCK] = json.dumps({"stability": STABILITY, "ids": known}, indent=2) + "\n"
    return files


def fingerprint_of(text: str) -> str:
    """Return the SHA-256 of the parsing canonical form of the schema in *text*."""
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(text))
    return str(fastavro.schema.fingerprint(canonical, "SHA-256"))


def _locked() -> Mapping[str, Any]:
    path = FOLDER / LOCK
    found: Mapping[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` compare; return the exit code."""
    stale = []
    for name, text in rendered().items():
        path = FOLDER / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text)
    sys.stdout.write("".join(f"{name}\n" for name in stale))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
