"""The codec of `schemas.codec` over the reference library `avro`: slow, and the judge of the fast one.

Nothing on the hot path imports this.
"""

from __future__ import annotations

import io
import struct
from functools import cache
from typing import Any

import avro.io
import avro.schema

from schemas.codec import MAGIC, UndecodableError, committed, todays
from schemas.shape import Packer
from schemas.topics import RECORDS

_HEAD = struct.Struct(">BI")
_CLASSES = {cls.__name__: cls for cls in RECORDS}


def encode(record: object) -> bytes:
    """Return *record* in wire format."""
    name = type(record).__name__
    entry = todays()[name]
    out = io.BytesIO()
    out.write(_HEAD.pack(MAGIC, entry.schema_id))
    writer = avro.io.DatumWriter(_schema(entry.schema_id))
    writer.write(_listed(_packer(name).pack(record)), avro.io.BinaryEncoder(out))
    return out.getvalue()


def decode(data: bytes) -> Any:
    """Return the record in *data*; raises `UndecodableError`."""
    if len(data) < _HEAD.size:
        message = f"{len(data)} bytes are too few for a record"
        raise UndecodableError(message)
    magic, schema_id = _HEAD.unpack_from(data)
    if magic != MAGIC or schema_id not in committed():
        message = f"magic {magic} and schema id {schema_id} are not ours"
        raise UndecodableError(message)
    body = io.BytesIO(data[_HEAD.size :])
    try:
        name = committed()[schema_id].record
        reader = avro.io.DatumReader(_schema(schema_id), _schema(todays()[name].schema_id))
        packed: Any = reader.read(avro.io.BinaryDecoder(body))
        record = _packer(name).unpack(packed)
    except Exception as error:  # noqa: BLE001 - any bytes may come; every failure means the same
        message = f"not decodable with schema {schema_id}: {type(error).__name__}"
        raise UndecodableError(message) from None
    if body.read(1):
        message = f"bytes are left over after schema {schema_id}"
        raise UndecodableError(message)
    return record


def _listed(value: Any) -> Any:
    """Return *value* with lists for tuples: the reference library takes an array as nothing else."""
    if isinstance(value, dict):
        return {name: _listed(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_listed(inner) for inner in value]
    return value


@cache
def _schema(schema_id: int) -> Any:
    return avro.schema.parse(committed()[schema_id].text)


@cache
def _packer(name: str) -> Packer[Any]:
    return Packer(_CLASSES[name])
