"""Old producers and new consumers, and the reverse: what the gate lets through is read five versions back."""

from __future__ import annotations

import copy
import json
from io import BytesIO
from itertools import product
from typing import Any

import fastavro
import pytest

from schemas.codec import Codec, SchemaEntry, UndecodableError
from schemas.compatibility import breaks, current, exit_code, findings
from schemas.decision import Decision
from tests.schemas.records import SAMPLES

RECORD = next(record for record in SAMPLES if isinstance(record, Decision))
NAME = "Decision"
VERSIONS = 5


def versions() -> list[dict[str, Any]]:
    """Return today's schema and five that follow: each adds a field with a default, and drops one again."""
    found = [current()[NAME]]
    for number in range(VERSIONS):
        following = copy.deepcopy(found[-1])
        if number == VERSIONS - 1:
            following["fields"] = [f for f in following["fields"] if f["name"] != "later_1"]
        following["fields"].append({"name": f"later_{number}", "type": "string", "default": f"d{number}"})
        found.append(following)
    return found


def written(schema: dict[str, Any], values: dict[str, Any]) -> bytes:
    """Return *values* as a producer of *schema* writes them, without the wire format's head."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(schema)), values)
    return out.getvalue()


def read(data: bytes, writer: dict[str, Any], reader: dict[str, Any]) -> dict[str, Any]:
    """Return *data* as a consumer of *reader* reads what *writer* wrote."""
    one, other = (fastavro.parse_schema(copy.deepcopy(schema)) for schema in (writer, reader))
    found: Any = fastavro.schemaless_reader(BytesIO(data), one, other)
    return dict(found)


def later(schema: dict[str, Any]) -> dict[str, str]:
    """Return the fields of *schema* that today's does not have, with their defaults."""
    return {f["name"]: f["default"] for f in schema["fields"] if f["name"].startswith("later_")}


def plain() -> dict[str, Any]:
    """Return the sample as plain values."""
    return read(Codec().encode(RECORD)[5:], current()[NAME], current()[NAME])


def test_scar_26_every_version_reads_every_other() -> None:
    """Five versions, each producer against each consumer: common fields are equal, new ones have defaults."""
    found = versions()
    history = {NAME: {f"{n:04d}.avsc": schema for n, schema in enumerate(found)}}
    assert findings({NAME: found[-1]}, history) == []
    for writer, reader in product(found, found):
        seen = read(written(writer, plain() | dict.fromkeys(later(writer), "set")), writer, reader)
        assert {name: seen[name] for name in plain()} == plain()
        assert {name: seen[name] for name in later(reader)} == {
            name: "set" if name in later(writer) else default for name, default in later(reader).items()
        }


def test_scar_26_our_codec_reads_a_later_producer_by_its_schema() -> None:
    """A log of a newer version, whose schemas travel with it, gives records of this version."""
    latest = versions()[-1]
    entry = SchemaEntry(900, NAME, "", json.dumps(latest))
    wire = b"\x00" + (900).to_bytes(4, "big") + written(latest, plain() | dict.fromkeys(later(latest), "set"))
    codec = Codec([entry])

    assert codec.decode(wire) == RECORD


def test_scar_26_a_record_of_an_unknown_schema_is_never_guessed() -> None:
    """Without its schema it is undecodable, which makes it a dead letter."""
    wire = b"\x00" + (901).to_bytes(4, "big") + written(current()[NAME], plain())
    with pytest.raises(UndecodableError):
        Codec().decode(wire)


@pytest.mark.parametrize("breaking", ["no default", "other type", "gone", "union grew"])
def test_scar_26_the_gate_blocks_what_one_side_could_not_read(breaking: str) -> None:
    """A breaking schema is found against every version in the history, and fails the build from v1 on."""
    before = current()[NAME]
    after = copy.deepcopy(before)
    field = next(f for f in after["fields"] if "default" not in f)
    if breaking == "no default":
        after["fields"].append({"name": "colour", "type": "string"})
    elif breaking == "other type":
        field["type"] = "double"
    elif breaking == "gone":
        after["fields"].remove(field)
    else:
        field["type"] = ["null", "string"]
    found = findings({NAME: after}, {NAME: {"0001.avsc": before}})

    assert found != []
    assert breaks(before, after) != []
    assert breaks(after, before) != []
    assert exit_code(found, "v1") == 1
