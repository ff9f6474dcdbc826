"""Every logged decision with what it was made of, read from a log partition by partition."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from replay.shadow_store import ShadowStore
from replay.view import LogView
from schemas.codec import Codec, UndecodableError
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.signal import SignalSet
from schemas.topics import DECISIONS, signals_topic

_HEAD = struct.Struct(">BI")
_Raw = dict[tuple[str, int], bytes | None]


@dataclass(frozen=True, slots=True)
class Case:
    """A Decision as logged, by which schema, and the SignalSets that its `meta.inputs` names.

    `missing` are the inputs that the log does not hold, as ``role@offset``; `beside` are the sets of roles
    that observed the request in shadow only, so that no decision was made of them.
    """

    partition: int
    offset: int
    schema_id: int
    decision: Decision
    sets: tuple[tuple[str, SignalSet], ...]
    missing: tuple[str, ...]
    beside: tuple[tuple[int, SignalSet], ...] = ()

    @property
    def inputs(self) -> str:
        """Return the inputs as people read them: ``role@offset``, in the order of the record."""
        return ", ".join(f"{i.role}@{i.offset}" for i in self.decision.meta.inputs) or "none"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record in `decisions` that is no Decision of that partition; `reason` quotes nothing."""

    partition: int
    offset: int
    reason: str


def cases(view: LogView) -> Iterator[Case | Unreadable]:
    """Yield every record of `decisions`, repeats included, in partition order.

    Holds the needed SignalSets of one partition, encoded; those that were observed in shadow alone are in a
    temporary file.
    """
    codec = Codec(view.schemas().values(), compiled=True)
    for partition in range(view.topics().get(DECISIONS, 0)):
        for _, case in cases_in(view, codec, partition):
            yield case


def cases_in(
    view: LogView, codec: Codec, partition: int, after: int = -1
) -> Iterator[tuple[Envelope, Case | Unreadable]]:
    """Yield every record of *partition* of `decisions` beyond offset *after*, as it is and as read."""
    raw = _inputs_of(view, codec, partition)
    with ShadowStore(view, codec, partition) as beside:
        for envelope in view.read(DECISIONS, partition):
            if envelope.offset <= after:
                continue
            decision = decision_of(codec, envelope)
            if isinstance(decision, Unreadable):
                yield envelope, decision
                continue
            case = _case(codec, envelope, decision, raw)
            yield envelope, replace(case, beside=beside.about(decision.origin.offset, decision.request_id))


def decision_of(codec: Codec, envelope: Envelope) -> Decision | Unreadable:
    """Return the Decision in *envelope*, of its own partition, or why there is none."""
    try:
        decision: Decision = codec.decode_as(Decision, envelope.value)
    except UndecodableError as error:
        return Unreadable(envelope.partition, envelope.offset, str(error))
    if decision.origin.partition != envelope.partition:
        reason = f"its origin is in partition {decision.origin.partition}"
        return Unreadable(envelope.partition, envelope.offset, reason)
    return decision


def _inputs_of(view: LogView, codec: Codec, partition: int) -> _Raw:
    """Return the encoded SignalSets that the decisions of *partition* name, by role and offset."""
    wanted: dict[str, set[int]] = {}
    for envelope in view.read(DECISIONS, partition):
        decision = decision_of(codec, envelope)
        if isinstance(decision, Decision):
            for used in decision.meta.inputs:
                wanted.setdefault(used.role, set()).add(used.offset)
    raw: _Raw = {}
    for role, offsets in wanted.items():
        if partition >= view.topics().get(signals_topic(role), 0):
            continue
        for envelope in view.read(signals_topic(role), partition):
            if envelope.offset in offsets:
                raw[role, envelope.offset] = envelope.value
    return raw


def _case(codec: Codec, envelope: Envelope, decision: Decision, raw: _Raw) -> Case:
    used = [(each.role, each.offset) for each in decision.meta.inputs]
    return case_of(envelope, decision, {each: _signals(codec, raw.get(each)) for each in used})


def case_of(
    envelope: Envelope, decision: Decision, observed: Mapping[tuple[str, int], SignalSet | None]
) -> Case:
    """Return *decision*, which is in *envelope*, with the SignalSets by role and offset that it names."""
    _, schema_id = _HEAD.unpack_from(envelope.value or b"")
    return case_at((envelope.partition, envelope.offset, schema_id), decision, observed)


def case_at(
    place: tuple[int, int, int], decision: Decision, observed: Mapping[tuple[str, int], SignalSet | None]
) -> Case:
    """Return the same of a decision that is at *place*: partition, offset, and by which schema."""
    sets: list[tuple[str, SignalSet]] = []
    missing: list[str] = []
    for used in decision.meta.inputs:
        found = observed.get((used.role, used.offset))
        # Another request's would be worse than none.
        if found is None or (found.request_id, found.origin) != (decision.request_id, decision.origin):
            missing.append(f"{used.role}@{used.offset}")
        else:
            sets.append((used.role, found))
    return Case(*place, decision, tuple(sets), tuple(missing))


def _signals(codec: Codec, value: bytes | None) -> SignalSet | None:
    try:
        found: SignalSet = codec.decode_as(SignalSet, value)
    except UndecodableError:
        return None
    return found
