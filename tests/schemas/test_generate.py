"""Ids of schemas are for ever: what changes gets a new one, and what was written under the old is read."""

from __future__ import annotations

import json
from dataclasses import make_dataclass
from typing import Any

import pytest

import schemas.codec
from schemas.codec import Codec, SchemaEntry, committed, todays
from schemas.generate import FOLDER, fingerprint_of, rendered
from schemas.topics import RECORDS
from tests.schemas.records import SAMPLES, readable

_TAIL = b"\x00\x00"
"""The two empty arrays at the end of a SignalSet, which the old schema of the last test does not have."""


def named(*fields: tuple[str, Any, Any]) -> type:
    """Return a record class with an id and *fields* that have defaults."""
    return make_dataclass("Thing", [("name", str), *fields], frozen=True)


def lock_in(files: dict[str, str]) -> dict[str, Any]:
    """Return the lock file among *files*."""
    found: dict[str, Any] = json.loads(files["lock.json"])
    return found


def test_an_unchanged_schema_keeps_its_id() -> None:
    """What is committed is what the record classes give, ids included."""
    lock = json.loads((FOLDER / "lock.json").read_text())

    assert lock_in(rendered(lock)) == lock
    assert lock["stability"] == "v1"
    assert {row["record"] for row in lock["ids"].values()} == {cls.__name__ for cls in RECORDS}


def test_a_changed_schema_gets_a_new_id_and_the_old_one_stays() -> None:
    """Twice changed, it has three ids, each with its own text and fingerprint in the history."""
    versions = [named(), named(("colour", str, "")), named(("colour", str, ""), ("size", int, 0))]
    other = make_dataclass("Other", [("name", str)], frozen=True)
    files: dict[str, str] = {}
    lock: dict[str, Any] = {}
    for version in versions:
        new = rendered(lock, [version, other])
        files, lock = files | new, lock_in(new)
    ids = {key: (row["record"], row["file"]) for key, row in lock["ids"].items()}

    assert ids == {
        "1": ("Thing", "history/Thing/0001.avsc"),
        "2": ("Other", "Other.avsc"),
        "3": ("Thing", "history/Thing/0002.avsc"),
        "4": ("Thing", "Thing.avsc"),
    }
    assert all(fingerprint_of(files[row["file"]]) == row["fingerprint"] for row in lock["ids"].values())
    assert files["history/Thing/0003.avsc"] == files["Thing.avsc"]


def test_every_id_has_its_schema_and_every_schema_its_history() -> None:
    """Texts have the fingerprints of the lock file; what ever had an id is below history."""
    history = {fingerprint_of(path.read_text()) for path in (FOLDER / "history").glob("*/*.avsc")}

    for entry in committed().values():
        assert fingerprint_of(entry.text) == entry.fingerprint
        assert entry.fingerprint in history


def test_what_an_earlier_id_wrote_is_read_and_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of an old id gets the defaults of what came since; new ones have the highest id."""
    record = next(sample for sample in SAMPLES if type(sample).__name__ == "SignalSet")
    now = todays()["SignalSet"]
    old = json.loads(now.text)
    old["fields"] = [field for field in old["fields"] if not field["name"].startswith("shadow")]
    text = json.dumps(old)
    ids = {**committed(), now.schema_id: SchemaEntry(now.schema_id, now.record, fingerprint_of(text), text)}
    ids[99] = SchemaEntry(99, now.record, now.fingerprint, now.text)
    before = Codec(compiled=True).encode(record)
    monkeypatch.setattr(schemas.codec, "committed", lambda: ids)

    for compiled in (False, True):
        codec = Codec(compiled=compiled)
        written = codec.encode(record)
        assert int.from_bytes(written[1:5], "big") == 99
        assert readable(codec.decode(written)) == readable(record)
        assert readable(codec.decode(before.removesuffix(_TAIL))) == readable(record)
