"""The compatibility gate lets through what old and new readers can both read, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.compatibility import breaks, current, exit_code, findings, history, main, record_history
from schemas.topics import RECORDS

Edit = Callable[[dict[str, Any]], None]


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(f for f in schema["fields"] if f["name"] == name)
    return found


def _drop(name: str) -> Edit:
    return lambda schema: schema["fields"].remove(_field(schema, name))


def _add(**field: Any) -> Edit:
    return lambda schema: schema["fields"].append(field)


def _retype(name: str, kind: Any) -> Edit:
    return lambda schema: _field(schema, name).update(type=kind)


def _rename_record(schema: dict[str, Any]) -> None:
    schema["name"] = "Query"


def _grow_body(schema: dict[str, Any]) -> None:
    _field(schema, "body")["type"]["fields"].append({"name": "lang", "type": "string", "default": ""})


def _break_body(schema: dict[str, Any]) -> None:
    _field(schema, "body")["type"]["fields"].append({"name": "lang", "type": "string"})


def _resize_id(schema: dict[str, Any]) -> None:
    _field(schema, "request_id")["type"]["size"] = 20


def _reorder(schema: dict[str, Any]) -> None:
    # `recipe` and `policy_hash` declare no type, so that references stay in order.
    one, other = _field(schema, "recipe"), _field(schema, "policy_hash")
    at, other_at = schema["fields"].index(one), schema["fields"].index(other)
    schema["fields"][at], schema["fields"][other_at] = other, one


COMPATIBLE: dict[str, Edit] = {
    "nothing": lambda _schema: None,
    "a new field with a default": _add(name="colour", type="string", default=""),
    "a new nullable field with a default": _add(name="colour", type=["null", "string"], default=None),
    "a defaulted field gone": _drop("priority"),
    "a nested record with a new defaulted field": _grow_body,
    "two fields in another order": _reorder,
}
BREAKING: dict[str, Edit] = {
    "a new field without a default": _add(name="colour", type="string"),
    "a field without a default gone": _drop("tenant"),
    "a long that became a double": _retype("accepted_at", "double"),
    "a string that became nullable": _retype("tenant", ["null", "string"]),
    "an array of other things": _retype("roles", {"type": "array", "items": "long"}),
    "a nested record with a new undefaulted field": _break_body,
    "an id of another size": _resize_id,
    "a record of another name": _rename_record,
}


def _edited(edit: Edit) -> tuple[dict[str, Any], dict[str, Any]]:
    before = current()["Request"]
    after = copy.deepcopy(before)
    edit(after)
    return before, after


def _reference_verdict(one: dict[str, Any], other: dict[str, Any]) -> bool:
    schemas = [avro.schema.parse(json.dumps(s)) for s in (one, other)]
    checker: Any = ReaderWriterCompatibilityChecker
    verdicts = [
        checker().get_compatibility(reader, writer).compatibility
        for reader, writer in (schemas, schemas[::-1])
    ]
    return all(verdict is SchemaCompatibilityType.compatible for verdict in verdicts)


@pytest.mark.parametrize("name", COMPATIBLE)
def test_a_compatible_change_passes(name: str) -> None:
    """What both sides can read is no break, in either direction, and the reference library agrees."""
    before, after = _edited(COMPATIBLE[name])

    assert breaks(before, after) == []
    assert breaks(after, before) == []
    assert _reference_verdict(before, after)


@pytest.mark.parametrize("name", BREAKING)
def test_a_breaking_change_is_found(name: str) -> None:
    """What one side cannot read is a break, in either direction, and the reference library agrees."""
    before, after = _edited(BREAKING[name])

    assert len(breaks(before, after)) == 1
    assert len(breaks(after, before)) == 1
    assert not _reference_verdict(before, after)


def test_a_string_must_not_become_bytes() -> None:
    """Avro would promote one to the other; a record class would then hold the wrong type."""
    before, after = _edited(_retype("tenant", "bytes"))

    assert breaks(before, after) == ["Request.tenant: string became bytes"]


def test_a_break_names_the_version_and_the_field() -> None:
    """The finding says which committed version cannot be read, where, and why."""
    before, after = _edited(_break_body)

    assert findings({"Request": after}, {"Request": {"0001.avsc": before}}) == [
        "Request/0001.avsc: Request.body.lang: came without a default"
    ]


def test_the_gate_is_transitive() -> None:
    """A field may not come back with another type, though its last version had dropped it."""
    first, second = _edited(_drop("priority"))
    third = copy.deepcopy(second)
    third["fields"].append({"name": "priority", "type": "string", "default": ""})

    assert breaks(second, third) == []
    assert findings({"Request": third}, {"Request": {"0001.avsc": first, "0002.avsc": second}}) == [
        "Request/0001.avsc: Request.priority: long became string"
    ]


def test_a_record_must_not_vanish() -> None:
    """A record that logs hold stays a record."""
    assert findings({}, {"Request": {"0001.avsc": {}}}) == ["Request: in the history, but no longer a record"]


def test_the_gate_only_reports_while_the_schemas_are_v0() -> None:
    """A break fails the build from v1 on."""
    assert exit_code(["a break"], "v0") == 0
    assert exit_code(["a break"], "v1") == 1
    assert exit_code([], "v1") == 0


def test_history_is_recorded_once(tmp_path: Path) -> None:
    """Recording again adds nothing, and what was recorded is compatible with itself."""
    assert len(record_history(tmp_path)) == len(RECORDS)
    assert record_history(tmp_path) == []
    assert findings(current(), history(tmp_path)) == []


def test_the_committed_schemas_pass_the_gate(capsys: pytest.CaptureFixture[str]) -> None:
    """Today's schemas read the whole committed history."""
    assert main([]) == 0
    assert capsys.readouterr().out == ""
