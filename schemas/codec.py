"""Records to bytes and back, in the Confluent wire format: 0, a 4-byte schema id, the Avro body.

The schemas and their ids are the committed ones. `schemas.compiled` does the work where asked to, as
hosts and replay do, else fastavro; `schemas.reference` is the same over the reference library. Tests hold
all three equal.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import fastavro

from schemas.compiled import Decode, Encode, decoder, encoder
from schemas.shape import Packer
from schemas.topics import RECORDS

MAGIC = 0
_HEAD = struct.Struct(">BI")


class UndecodableError(ValueError):
    """Bytes that are no record of ours; the message never quotes them."""


@dataclass(frozen=True, slots=True)
class SchemaEntry:
    """One committed schema: its id, the record it is of, its fingerprint and its text."""

    schema_id: int
    record: str
    fingerprint: str
    text: str


@cache
def committed() -> Mapping[int, SchemaEntry]:
    """Return every committed schema by id, as the lock file lists them."""
    folder = resources.files("schemas") / "avro"
    lock = json.loads((folder / "lock.json").read_text())
    return {
        int(key): SchemaEntry(int(key), row["record"], row["fingerprint"], (folder / row["file"]).read_text())
        for key, row in lock["ids"].items()
    }


def todays() -> Mapping[str, SchemaEntry]:
    """Return the schema that each record is written with: of those committed, the one of the highest id."""
    return {entry.record: entry for _, entry in sorted(committed().items())}


class Codec:
    """Encodes and decodes records with the committed schemas, and decodes with *older* ones too.

    *compiled* writes and reads today's schemas with `schemas.compiled`, which gives the same bytes and is
    stricter: a number of more than 64 bits, which fastavro cuts down, is undecodable. What has more than
    *largest* bytes is not decoded.
    """

    def __init__(
        self, older: Iterable[SchemaEntry] = (), *, compiled: bool = False, largest: int | None = None
    ) -> None:
        self._largest = largest
        classes = {cls.__name__: cls for cls in RECORDS}
        self._packers: dict[str, Packer[Any]] = {name: Packer(cls) for name, cls in classes.items()}
        self._writers: dict[type, tuple[bytes, Any, Packer[Any]]] = {}
        self._readers: dict[int, tuple[Any, Any, Packer[Any]]] = {}
        self._encoders: dict[type, tuple[bytes, Encode]] = {}
        self._decoders: dict[int, Decode] = {}
        current: dict[str, Any] = {}
        for entry in todays().values():
            schema = fastavro.parse_schema(json.loads(entry.text))
            current[entry.record] = schema
            packer = self._packers[entry.record]
            self._writers[classes[entry.record]] = (_HEAD.pack(MAGIC, entry.schema_id), schema, packer)
            self._readers[entry.schema_id] = (schema, None, packer)
            if compiled:
                cls = classes[entry.record]
                self._encoders[cls] = (_HEAD.pack(MAGIC, entry.schema_id), encoder(cls))
                self._decoders[entry.schema_id] = decoder(cls)
        now = {entry.schema_id: entry.fingerprint for entry in todays().values()}
        for entry in (*committed().values(), *older):
            if entry.record in current and now.get(entry.schema_id) != entry.fingerprint:
                schema = fastavro.parse_schema(json.loads(entry.text))
                self._readers[entry.schema_id] = (schema, current[entry.record], self._packers[entry.record])
                self._decoders.pop(entry.schema_id, None)

    def encode(self, record: object) -> bytes:
        """Return *record* in wire format."""
        if type(record) in self._encoders:
            head, encode = self._encoders[type(record)]
            parts = [head]
            encode(record, parts.append)
            return b"".join(parts)
        head, schema, packer = self._writers[type(record)]
        out = io.BytesIO()
        out.write(head)
        fastavro.schemaless_writer(out, schema, packer.pack(record))
        return out.getvalue()

    def decode(self, data: bytes | None) -> Any:
        """Return the record in *data*; raises `UndecodableError`, which says why and quotes nothing."""
        if data is None or len(data) < _HEAD.size:
            message = "no value" if data is None else f"{len(data)} bytes are too few for a record"
            raise UndecodableError(message)
        self.check_size(data)
        magic, schema_id = _HEAD.unpack_from(data)
        if magic != MAGIC:
            message = f"the first byte is {magic}, not {MAGIC}: not the wire format"
            raise UndecodableError(message)
        if schema_id not in self._readers:
            message = f"schema id {schema_id} is not a committed one"
            raise UndecodableError(message)
        try:
            record, end = self._body(schema_id, data)
        except Exception as error:  # noqa: BLE001 - any bytes may come; every failure means the same
            message = f"not decodable with schema {schema_id}: {type(error).__name__}"
            raise UndecodableError(message) from None
        if end != len(data):
            message = f"{len(data) - end} bytes are left over after schema {schema_id}"
            raise UndecodableError(message)
        return record

    def check_size(self, data: bytes | None) -> None:
        """Raise `UndecodableError` if *data* has more bytes than are ever decoded."""
        if data is not None and self._largest is not None and len(data) > self._largest:
            message = f"{len(data)} bytes are more than the {self._largest} that a record may have"
            raise UndecodableError(message)

    def _body(self, schema_id: int, data: bytes) -> tuple[Any, int]:
        """Return the record after the head of *data*, and where it ends."""
        if schema_id in self._decoders:
            return self._decoders[schema_id](data, _HEAD.size)
        writer, reader, packer = self._readers[schema_id]
        body = io.BytesIO(data)
        body.seek(_HEAD.size)
        packed: Any = fastavro.schemaless_reader(body, writer, reader)
        return packer.unpack(packed), body.tell()

    def decode_as(self, cls: type, data: bytes | None) -> Any:
        """Return the record in *data* if it is a *cls*; raises `UndecodableError` otherwise."""
        record = self.decode(data)
        if not isinstance(record, cls):
            message = f"a {type(record).__name__} where a {cls.__name__} belongs"
            raise UndecodableError(message)
        return record


def body_of(cls: type, record: object) -> bytes:
    """Return the Avro body alone of a part of a record, such as a Decision's core."""
    schema, packer = _part(cls)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, packer.pack(record))
    return out.getvalue()


@cache
def _part(cls: type) -> tuple[Any, Packer[Any]]:
    from schemas.shape import avro_schema  # noqa: PLC0415 - only this rarely used path needs it

    return fastavro.parse_schema(avro_schema(cls)), Packer(cls)
