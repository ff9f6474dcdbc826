"""The golden examples: what was once written stays readable, byte for byte, by anyone with the schemas."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest

from schemas.codec import Codec, committed
from schemas.generate import FOLDER, main
from schemas.topics import RECORDS
from tests.schemas.records import EXAMPLES, SAMPLES, readable

CODEC = Codec()
PATHS = sorted(EXAMPLES.glob("*.json"))


def _load(path: Path) -> dict[str, Any]:
    example: dict[str, Any] = json.loads(path.read_text())
    return example


def test_every_record_class_has_an_example_and_a_sample() -> None:
    """A record without a committed example could change unnoticed."""
    names = sorted(cls.__name__ for cls in RECORDS)

    assert sorted(path.stem for path in PATHS) == names
    assert sorted(type(sample).__name__ for sample in SAMPLES) == names


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_decodes_to_what_it_says_and_encodes_to_its_bytes(path: Path) -> None:
    """Wire bytes, readable value and today's record classes agree."""
    example = _load(path)
    wire = bytes.fromhex(example["wire"])
    record = CODEC.decode(wire)

    assert type(record).__name__ == example["record"] == path.stem
    assert readable(record) == example["value"]
    assert CODEC.encode(record) == wire


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_names_the_schema_that_wrote_it(path: Path) -> None:
    """An example's schema id and fingerprint are in the lock file."""
    example = _load(path)
    entry = committed()[example["schema_id"]]

    assert (entry.record, entry.fingerprint) == (example["record"], example["fingerprint"])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_plain_avro_with_only_the_committed_files_reads_an_example(path: Path) -> None:
    """A stranger needs the lock file, the schema file and the public library; none of our code."""
    example = _load(path)
    wire = bytes.fromhex(example["wire"])
    lock = json.loads((FOLDER / "lock.json").read_text())
    file = lock["ids"][str(int.from_bytes(wire[1:5], "big"))]["file"]
    reader = avro.io.DatumReader(avro.schema.parse((FOLDER / file).read_text()))
    body = io.BytesIO(wire[5:])
    value: Any = reader.read(avro.io.BinaryDecoder(body))

    assert wire[0] == 0
    assert set(value) == set(example["value"])
    assert body.read() == b""


def test_the_committed_schemas_are_those_of_the_record_classes(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m schemas.generate --check` finds nothing to write."""
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == ""
