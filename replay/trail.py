"""Every record that a log holds about one request, and which of them count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agents.dispatch import DEAD_LETTERED
from agents.errors import RouterError
from replay.view import LogView
from schemas.codec import Codec, UndecodableError
from schemas.completion import Completion, Result
from schemas.dead_letter import DeadLetter
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.request import Request
from schemas.signal import SignalSet
from schemas.topics import REQUESTS, family


class UnknownRequestError(RouterError):
    """The log holds no record about the request."""


@dataclass(frozen=True, slots=True)
class Found:
    """A record and where it lies; `timestamp` is the log's, ms since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    record: Any


@dataclass(frozen=True, slots=True)
class Trail:
    """What the log holds about one request, in log order per partition, topic by topic."""

    request_id: bytes
    found: tuple[Found, ...]

    def of(self, cls: type) -> tuple[Found, ...]:
        """Return the records of class *cls*."""
        return tuple(f for f in self.found if isinstance(f.record, cls))

    @property
    def request(self) -> Found | None:
        """The request as first admitted."""
        return next(iter(self.of(Request)), None)

    @property
    def decision(self) -> Found | None:
        """The first Decision that decides; one that only reports a dead letter does not."""
        made = self.of(Decision)
        return next((f for f in made if f.record.core.failure != DEAD_LETTERED), made[0] if made else None)

    @property
    def result(self) -> Found | None:
        """The effective result: the first in the log."""
        return next(iter(self.of(Result)), None)

    @property
    def signals(self) -> tuple[Found, ...]:
        """The SignalSet that counted for each role: the one decided upon, else the first."""
        decision = self.decision
        used = {(i.role, i.offset) for i in decision.record.meta.inputs} if decision else set()
        picked: dict[str, Found] = {}
        for found in self.of(SignalSet):
            role = found.record.role
            if (role, found.offset) in used or role not in picked:
                picked[role] = found
        return tuple(picked.values())

    @property
    def collapsed(self) -> tuple[Found, ...]:
        """Repeats that count for nothing, because another record of their kind came first."""
        kept = {id(f) for f in (self.request, self.decision, self.result, *self.signals) if f}
        kinds = (Request, Decision, Result, SignalSet)
        repeats = [f for f in self.found if isinstance(f.record, kinds) and id(f) not in kept]
        return (*repeats, *_repeated(self.of(Job)), *_repeated(self.of(Completion)))


def _repeated(found: Iterable[Found]) -> Iterator[Found]:
    seen: set[tuple[int, int, int]] = set()
    for one in found:
        key = (one.record.step, one.record.branch, one.record.attempt)
        if key in seen:
            yield one
        seen.add(key)


_ORDER = (
    Request,
    SignalSet,
    Decision,
    Job,
    AttemptStarted,
    AttemptEnded,
    Completion,
    Result,
    DeadLetter,
    Feedback,
)


def trail(view: LogView, request_id: bytes) -> Trail:
    """Return every record of *view* about *request_id*; raises `UnknownRequestError` if there is none."""
    codec = Codec(view.schemas().values(), compiled=True)
    requests = list(_about(view, codec, request_id, [REQUESTS], None))
    # A derived record lies in the partition of its origin.
    partitions = {f.partition for f in requests} or None
    others = [topic for topic in sorted(view.topics()) if topic != REQUESTS and _ours(topic)]
    found = requests + list(_about(view, codec, request_id, others, partitions))
    if not found:
        held = ", ".join(sorted(view.topics())) or "nothing"
        raise UnknownRequestError(
            f"no record about request {request_id.hex()} in this log, which holds: {held}; "
            "ids are in the results file, and a log that is still filling may not have it yet"
        )
    found.sort(key=lambda f: _ORDER.index(type(f.record)))
    return Trail(request_id, tuple(found))


def _ours(topic: str) -> bool:
    try:
        return any(cls in _ORDER for cls in family(topic).records)
    except (KeyError, StopIteration):
        return False


def _about(
    view: LogView, codec: Codec, request_id: bytes, topics: Sequence[str], partitions: set[int] | None
) -> Iterator[Found]:
    sizes = view.topics()
    wanted = [(t, p) for t in topics for p in range(sizes.get(t, 0)) if partitions is None or p in partitions]
    for topic, partition in wanted:
        for envelope in view.read(topic, partition):
            record = _record(codec, envelope, request_id)
            if record is not None:
                yield Found(topic, partition, envelope.offset, envelope.timestamp, record)


def _record(codec: Codec, envelope: Envelope, request_id: bytes) -> object:
    """Return the record in *envelope* if it is about *request_id*."""
    # An id is its 16 bytes in Avro too: most records need no decoding to be ruled out.
    if envelope.value is None or request_id not in envelope.value:
        return None
    try:
        record = codec.decode(envelope.value)
    except UndecodableError:
        return None
    return record if isinstance(record, _ORDER) and record.request_id == request_id else None
