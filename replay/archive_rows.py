"""Records of the log as Arrow rows: their own fields, beside the place in the log that they came from.

What is sealed stays sealed, and is left out unless bodies are asked for.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import pyarrow as pa

from replay.cases import Case
from schemas.completion import Completion, Result
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.request import Request
from schemas.sealed import Claim, Sealed
from schemas.shape import Packer, avro_name, hints_of, is_optional, strip_optional
from schemas.topics import COMPLETIONS, DECISIONS, FEEDBACK, REQUESTS, RESULTS

SIGNALS = "signals"
KINDS: Mapping[str, type] = {
    REQUESTS: Request,
    DECISIONS: Decision,
    COMPLETIONS: Completion,
    RESULTS: Result,
    FEEDBACK: Feedback,
}
"""What is archived, by topic and table; the table `signals` comes with that of the decisions."""

NOBODY = "(unknown)"
"""The tenant of a record whose request the log does not hold."""

_PLACE = (
    ("topic", pa.string()),
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("timestamp", pa.timestamp("ms", "UTC")),
    ("schema_id", pa.int32()),
    ("tenant", pa.string()),
)
_PRIMITIVES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}
OBSERVATION = pa.struct(
    [
        ("role", pa.string()),
        ("type", pa.string()),
        ("name", pa.string()),
        ("label", pa.string()),
        ("matched", pa.bool_()),
        ("confidence", pa.float64()),
        ("value", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)
_SET = pa.struct(
    [
        ("role", pa.string()),
        ("offset", pa.int64()),
        ("policy_hash", pa.string()),
        ("started_at", pa.int64()),
        ("elapsed_us", pa.int64()),
        ("classifiers", pa.list_(pa.string())),
        ("versions", pa.list_(pa.string())),
    ]
)
_SIGNAL_FIELDS = (
    ("request_id", pa.binary(16)),
    ("observations", pa.list_(OBSERVATION)),
    ("sets", pa.list_(_SET)),
    ("missing", pa.list_(pa.string())),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A record, where it was in the log, and whose it is."""

    envelope: Envelope
    record: Any
    tenant: str


def schema_of(kind: str, *, bodies: bool = False) -> pa.Schema:
    """Return the columns of table *kind*."""
    if kind == SIGNALS:
        return pa.schema([*_PLACE, *_SIGNAL_FIELDS])
    own = [each for each in _fields(KINDS[kind], bodies=bodies) if each[0] != "tenant"]
    return pa.schema([*_PLACE, *own])


def table_of(kind: str, rows: Sequence[Row], *, bodies: bool = False) -> pa.Table:
    """Return *rows* as the table *kind*; those of `signals` hold a `Case` each."""
    if kind == SIGNALS:
        plain: Iterator[dict[str, Any]] = (_signals(row.record) for row in rows)
    else:
        packer: Packer[Any] = Packer(KINDS[kind])
        plain = (packer.pack(row.record) for row in rows)
    schema = schema_of(kind, bodies=bodies)
    dicts = [found | _place(row) for found, row in zip(plain, rows, strict=True)]
    return pa.Table.from_pylist(dicts, schema=schema)


def _place(row: Row) -> dict[str, Any]:
    envelope = row.envelope
    return {
        "topic": envelope.topic,
        "partition": envelope.partition,
        "offset": envelope.offset,
        "timestamp": envelope.timestamp,
        "schema_id": int.from_bytes((envelope.value or b"")[1:5], "big"),
        "tenant": row.tenant,
    }


def _signals(case: Case) -> dict[str, Any]:
    offsets = {used.role: used.offset for used in case.decision.meta.inputs}
    sets = sorted(case.sets, key=lambda pair: pair[0])
    return {
        "request_id": case.decision.request_id,
        "observations": [
            {"role": role, **observed._asdict()} for role, found in sets for observed in found.observations
        ],
        "sets": [
            {
                "role": role,
                "offset": offsets[role],
                "policy_hash": found.policy_hash,
                "started_at": found.started_at,
                "elapsed_us": found.elapsed_us,
                "classifiers": list(found.classifiers),
                "versions": list(found.versions),
            }
            for role, found in sets
        ],
        "missing": list(case.missing),
    }


def _fields(cls: type, *, bodies: bool) -> list[tuple[str, pa.DataType]]:
    hints = hints_of(cls)
    found = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        bare = strip_optional(hint) if is_optional(hint) else hint
        if bodies or bare not in (Sealed, Claim):
            found.append((avro_name(field), _arrow(bare, bodies=bodies)))
    return found


def _arrow(hint: Any, *, bodies: bool) -> pa.DataType:  # noqa: ANN401 - a type as written
    if is_optional(hint):
        return _arrow(strip_optional(hint), bodies=bodies)
    if get_origin(hint) is Annotated:
        return pa.binary(get_args(hint)[1].size)
    if get_origin(hint) is tuple:
        return pa.list_(_arrow(get_args(hint)[0], bodies=bodies))
    if dataclasses.is_dataclass(hint):
        return pa.struct(_fields(typing.cast("type", hint), bodies=bodies))
    return _PRIMITIVES[hint]
