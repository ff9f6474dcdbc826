"""Records of the log as Arrow rows: their own fields, beside the place in the log that they came from.

What is sealed stays sealed, and all but its key's name is left out unless bodies are asked for.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin

import pyarrow as pa

from replay.cases import Case
from schemas.completion import Completion, Result
from schemas.control import PolicyActivated, PolicyPublished, PolicyShadowed
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.request import Request
from schemas.sealed import Claim, Sealed
from schemas.shape import Packer, avro_name, hints_of, is_optional, strip_optional
from schemas.signal import SignalSet
from schemas.topics import (
    COMPLETIONS,
    CONTROL_POLICY,
    DECISIONS,
    FEEDBACK,
    REQUESTS,
    RESULTS,
    signals_topic,
)

_SIGNAL_TOPICS = signals_topic("")

SIGNALS = "signals"
POLICIES = "policies"
KINDS: Mapping[str, tuple[type, ...]] = {
    REQUESTS: (Request,),
    SIGNALS: (SignalSet,),
    DECISIONS: (Decision,),
    COMPLETIONS: (Completion,),
    RESULTS: (Result,),
    FEEDBACK: (Feedback,),
    POLICIES: (PolicyPublished, PolicyActivated, PolicyShadowed),
}
"""What is archived, by table. A row of a table is one record of a topic."""

NOBODY = "(unknown)"
"""The tenant of a record whose request the log does not hold."""
NONE = "(none)"
"""The tenant of records that belong to no request."""

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
_DECIDED_FROM = (("observations", pa.list_(OBSERVATION)), ("missing", pa.list_(pa.string())))
"""Beside a decision, so that no reader has to join: what it was made of, and what the log lacks of it."""

_WHICH = ("record", pa.string())
"""Which record it is, in a table of several kinds."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record (of decisions a `Case`), where it was in the log, and whose it is."""

    envelope: Envelope
    record: Any
    tenant: str


def table_name(topic: str) -> str | None:
    """Return the table that the records of *topic* are archived in; None for none."""
    if topic.startswith(_SIGNAL_TOPICS):
        return SIGNALS
    if topic == CONTROL_POLICY:
        return POLICIES
    return topic if topic in KINDS else None


@cache
def schema_of(kind: str, *, bodies: bool = False) -> pa.Schema:
    """Return the columns of table *kind*."""
    classes = KINDS[kind]
    own: dict[str, pa.DataType] = {} if len(classes) == 1 else dict([_WHICH])
    for cls in classes:
        own |= {name: type_ for name, type_ in _fields(cls, bodies=bodies) if name != "tenant"}
    return pa.schema([*_PLACE, *own.items(), *(_DECIDED_FROM if kind == DECISIONS else ())])


def table_of(kind: str, rows: Sequence[Row], *, bodies: bool = False) -> pa.Table:
    """Return *rows* as the table *kind*; those of decisions hold a `Case` each."""
    packers = _packers(kind)
    dicts = [_packed(row.record, packers) | _place(row) for row in rows]
    return pa.Table.from_pylist(dicts, schema=schema_of(kind, bodies=bodies))


@cache
def _packers(kind: str) -> Mapping[type, Packer[Any]]:
    return {cls: Packer(cls) for cls in KINDS[kind]}


def _packed(record: Any, packers: Mapping[type, Packer[Any]]) -> dict[str, Any]:  # noqa: ANN401 - any record
    if isinstance(record, Case):
        return packers[Decision].pack(record.decision) | _decided_from(record)
    packed: dict[str, Any] = packers[type(record)].pack(record)
    return packed if len(packers) == 1 else packed | {_WHICH[0]: type(record).__name__}


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


def _decided_from(case: Case) -> dict[str, Any]:
    beside = ((found.role, found) for _, found in case.beside)
    sets = sorted([*case.sets, *beside], key=lambda pair: pair[0])
    return {
        "observations": [
            {"role": role, **observed._asdict()} for role, found in sets for observed in found.observations
        ],
        "missing": list(case.missing),
    }


def _fields(cls: type, *, bodies: bool) -> list[tuple[str, pa.DataType]]:
    hints = hints_of(cls)
    return [(avro_name(f), _arrow(hints[f.name], bodies=bodies)) for f in dataclasses.fields(cls)]


def _arrow(hint: Any, *, bodies: bool) -> pa.DataType:  # noqa: ANN401 - a type as written
    if is_optional(hint):
        return _arrow(strip_optional(hint), bodies=bodies)
    if get_origin(hint) is Annotated:
        return pa.binary(get_args(hint)[1].size)
    if get_origin(hint) is tuple:
        return pa.list_(_arrow(get_args(hint)[0], bodies=bodies))
    if hint in (Sealed, Claim) and not bodies:
        return _SEALED_BY
    if dataclasses.is_dataclass(hint):
        return pa.struct(_fields(typing.cast("type", hint), bodies=bodies))
    return _PRIMITIVES[hint]


_SEALED_BY = pa.struct([("key_id", pa.string()), ("alg", pa.string())])
"""What stays of sealed bytes that are left out: by which key, so that what is erased can be counted."""
