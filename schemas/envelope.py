"""The log on disk: one Avro container of envelopes per partition, beside a manifest.

An envelope is a record as the broker holds it: offset, timestamp (ms), key, headers, value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ENVELOPE_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Envelope",
    "namespace": "signalbox",
    "fields": [
        {"name": "offset", "type": "long"},
        {"name": "timestamp", "type": "long"},
        {"name": "key", "type": ["null", "bytes"]},
        {
            "name": "headers",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "EnvelopeHeader",
                    "fields": [{"name": "key", "type": "string"}, {"name": "value", "type": "bytes"}],
                },
            },
        },
        {"name": "value", "type": ["null", "bytes"]},
    ],
}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A record as a log holds it, with its place; `timestamp` is ms since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
