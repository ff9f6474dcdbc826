"""Write the committed Avro text and its lock file from the record classes.

Run as ``python -m schemas.generate``; ``--check`` writes nothing and exits 1 if anything differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fastavro.schema

from schemas.shape import avro_schema
from schemas.topics import RECORDS

FOLDER = Path(__file__).parent / "avro"
STABILITY = "v0"
"""v0: schemas may still change in place. v1 turns the compatibility gate on."""


def rendered() -> dict[str, str]:
    """Return file name -> text of everything that is generated."""
    files: dict[str, str] = {}
    ids: dict[str, dict[str, str]] = {}
    for number, cls in enumerate(RECORDS, start=1):
        file = f"{cls.__name__}.avsc"
        text = json.dumps(avro_schema(cls), indent=2) + "\n"
        canonical = fastavro.schema.to_parsing_canonical_form(json.loads(text))
        fingerprint = fastavro.schema.fingerprint(canonical, "SHA-256")
        files[file] = text
        ids[str(number)] = {"record": cls.__name__, "file": file, "fingerprint": fingerprint}
    files["lock.json"] = json.dumps({"stability": STABILITY, "ids": ids}, indent=2) + "\n"
    return files


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` compare; return the exit code."""
    stale = []
    for name, text in rendered().items():
        path = FOLDER / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    sys.stdout.write("".join(f"{name}\n" for name in stale))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
