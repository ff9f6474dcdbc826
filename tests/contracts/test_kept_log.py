"""A log that `run` kept is read with nothing but the reference Avro library and the committed schemas."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avro.datafile
import avro.io
import avro.schema
import pytest
from typer.testing import CliRunner

from signalbox import app
from tests.streams.batch_world import POLICY, PROFILE, batch_file, line

SCHEMAS = Path(__file__).parents[2] / "schemas" / "avro"
LINES: list[bytes | dict[str, Any]] = [
    line("a", "Python"),
    line("b", "Größe 日本"),
    {**line("c", model="small"), "headers": {"X-Authz-User-Id": "u1"}},
    line(None, "no name"),
    b"{",
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log that `signalbox run --keep-log` wrote."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "profile.yaml").write_text(PROFILE)
    file = batch_file(folder, LINES)
    options = {"--out": "out", "--policy": "policy.yaml", "--profile": "profile.yaml", "--keep-log": "log"}
    arguments = [word for key, name in options.items() for word in (key, str(folder / name))]
    done = CliRunner().invoke(app, ["run", str(file), *arguments])
    assert done.exit_code == 1, done.stderr  # one line is no JSON
    return folder / "log"


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the envelopes of one topic."""
    for path in sorted(folder.glob("*.avro")):
        with path.open("rb") as file, avro.datafile.DataFileReader(file, avro.io.DatumReader()) as reader:
            yield from reader


def records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over (record name, record) of one topic: a zero byte, a schema id, the Avro body."""
    lock = json.loads((SCHEMAS / "lock.json").read_text())["ids"]
    for row in rows(folder):
        magic, schema_id = struct.unpack(">BI", row["value"][:5])
        assert magic == 0
        entry = lock[str(schema_id)]
        schema = avro.schema.parse((SCHEMAS / entry["file"]).read_text())
        body = io.BytesIO(row["value"][5:])
        record: Any = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(body))
        yield entry["record"], record
        assert body.read() == b""


def test_every_record_of_every_topic_is_decoded(log: Path) -> None:
    """Each record is wholly read, and every kind that the run wrote is there."""
    manifest = json.loads((log / "manifest.json").read_text())
    found: dict[str, int] = {}
    for topic in manifest["topics"]:
        for name, _ in records(log / topic) if (log / topic).is_dir() else ():
            found[name] = found.get(name, 0) + 1
    assert found == {
        "PolicyPublished": 1, "PolicyActivated": 1, "RunOpened": 1, "RunSubmitted": 1, "Request": 4,
        "SignalSet": 3, "Decision": 4, "Job": 4, "AttemptStarted": 4, "AttemptEnded": 4, "Completion": 4,
        "Result": 4,
    }  # fmt: skip


def test_envelopes_and_records_have_their_contracted_fields(log: Path) -> None:
    """Envelopes, ids, origins and a decision's core are where acceptance looks for them."""
    for row in rows(log / "signalbox.decisions.v1"):
        assert row.keys() == {"offset", "timestamp", "key", "headers", "value"}
        assert all(header.keys() == {"key", "value"} for header in row["headers"])
    requests = {record["request_id"]: record for _, record in records(log / "signalbox.requests.v1")}
    for _, decision in records(log / "signalbox.decisions.v1"):
        assert len(decision["request_id"]) == 16
        assert decision["request_id"] in requests
        assert decision["origin"].keys() == {"partition", "offset"}
        core = decision["core"]
        assert len(core["candidates"]) == len(core["propensities"])
        assert sum(core["propensities"]) == pytest.approx(1)
        assert {"chosen", "policy_hash", "outcome"} <= core.keys()


def test_the_manifest_carries_the_schemas_and_policies_that_were_used(log: Path) -> None:
    """A log can be read without the repository: each schema that a record names is in the manifest."""
    manifest = json.loads((log / "manifest.json").read_text())
    lock = json.loads((SCHEMAS / "lock.json").read_text())["ids"]
    for schema_id, row in manifest["schemas"].items():
        assert row["fingerprint"] == lock[schema_id]["fingerprint"]
        assert row["schema"] == (SCHEMAS / lock[schema_id]["file"]).read_text()
    used = {record["policy_hash"] for _, record in records(log / "signalbox.requests.v1")}
    assert used == set(manifest["policies"])
