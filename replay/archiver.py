"""An archive in the making: fed with the records of partitions in order, it writes and commits chunks.

Where it goes on is kept with the data: it begins each partition behind what is committed. What a record
is archived with (whose it is; of a decision, its signals) comes from records that lie before it in
other topics: a row waits until these were read, and looks up in the archive what was read long ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from replay.archive_care import KEEPING, Keeping, compact, retain, sweep
from replay.archive_commits import (
    Commit,
    Identity,
    Manifest,
    Place,
    Stored,
    commits_in,
    file_name,
    put_commit,
    put_policy,
    settle,
)
from replay.archive_files import Files
from replay.archive_lookup import Lookup
from replay.archive_rows import KINDS, NOBODY, NONE, Row, table_name, table_of
from replay.cases import Unreadable, case_of, decision_of
from schemas.codec import Codec, SchemaEntry, UndecodableError
from schemas.completion import Completion, Result
from schemas.control import PolicyPublished
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.request import Request
from schemas.signal import SignalSet
from schemas.topics import COMPLETIONS, CONTROL_POLICY, DECISIONS, REQUESTS, family, signals_topic

CHUNK = 65_536
"""Records a chunk, at most."""
_BYTES = 64 * 1024 * 1024
"""Encoded bytes that wait to be written, at most, before `full` says so."""
_GRACE_S = 600.0
"""A writer that lost its place is granted so long to notice."""
_KEEP = 8192
"""SignalSets and tenants of a partition that are at hand without a look into the archive."""


@dataclass(slots=True)
class _Lane:
    """One partition: what was read and waits; `begin` is where its next commit begins."""

    place: Place
    begin: int
    position: int
    waiting: list[tuple[Envelope, Any]] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    finished: bool = False


class Archiver:
    """Writes one archive; of each place it is the only writer, from `assigned` until `revoked`."""

    def __init__(
        self,
        files: Files,
        identity: Identity,
        schemas: Sequence[SchemaEntry],
        keeping: Keeping = KEEPING,
        *,
        chunk: int = CHUNK,
    ) -> None:
        """Open or begin the archive; raises `InvalidRecord` if it is of another log."""
        Manifest.make(files, identity, schemas)
        self._files = files
        self._keeping = keeping
        self._bodies = identity.bodies
        self._chunk = chunk
        self._codec = Codec(schemas, compiled=True)
        self._lanes: dict[Place, _Lane] = {}
        self._lookup = Lookup(files, _KEEP)
        self._bytes = 0
        self._gaps: list[tuple[Place, int, int]] = []
        self.rows: dict[str, int] = {}
        self.chunks = 0
        self.unreadable = 0

    def assigned(self, places: Iterable[Place], *, before: float | None = None) -> Mapping[Place, int]:
        """Take *places* over and return where each goes on.

        What a dead writer left is finished or removed, uncommitted files only if written *before* that
        moment (seconds since the epoch), always if it is None.
        """
        wanted = list(places)
        settle(self._files, wanted, before=before)
        for place in wanted:
            done = commits_in(self._files, place)
            self._lookup.know(place, done)
            begin = done[-1].end if done else 0
            self._lanes[place] = _Lane(place, begin, begin)
        return {place: self._lanes[place].begin for place in wanted}

    def revoked(self, places: Iterable[Place]) -> None:
        """Let go of *places*; what was not written is read again by whoever takes them."""
        for place in places:
            lane = self._lanes.pop(place, None)
            if lane is not None:
                self._bytes -= sum(_size(envelope) for envelope, _ in lane.waiting)
            self._lookup.forget(place)

    def starts_at(self, place: Place, offset: int) -> None:
        """Note that the topic holds nothing of *place* before *offset*: what was not archived is lost.

        The next `flush` commits that, also where nothing else comes.
        """
        lane = self._lanes[place]
        if lane.begin:
            self.lost(place, offset)
        # One that was never read has lost nothing that it was to keep.
        lane.position = max(lane.position, offset)

    def lost(self, place: Place, offset: int) -> None:
        """Note that of *place* the topic dropped what was not taken yet and lies before *offset*."""
        lane = self._lanes[place]
        if offset > lane.position and not family(place[0]).compacted:
            lane.lost.append((lane.position, offset))
        lane.position = max(lane.position, offset)

    def gaps(self) -> Sequence[tuple[Place, int, int]]:
        """Return what was lost and is noted since this was asked last: place, first offset, end."""
        found, self._gaps = self._gaps, []
        return found

    def take(self, place: Place, envelopes: Iterable[Envelope]) -> None:
        """Take in records of *place*, in order; those that are archived already are passed over."""
        lane = self._lanes[place]
        for envelope in envelopes:
            if envelope.offset < lane.position:
                continue
            lane.position = envelope.offset + 1
            record = self._decoded(envelope)
            if record is None:
                lane.unreadable.append(envelope.offset)
                self.unreadable += 1
                continue
            lane.waiting.append((envelope, record))
            self._bytes += _size(envelope)
            if isinstance(record, Request):
                self._lookup.whose(place[1], envelope.offset, record.tenant)
            elif isinstance(record, SignalSet):
                self._lookup.observed(place, envelope.offset, record)

    def reached(self, place: Place, position: int) -> None:
        """Note that nothing else lies before *position* in *place*."""
        lane = self._lanes.get(place)
        if lane is not None:
            lane.position = max(lane.position, position)

    def finished(self, place: Place) -> None:
        """Note that nothing more comes of *place*, so that nobody waits for it."""
        self._lanes[place].finished = True

    def policy(self, name: str, text: str) -> None:
        """Keep the normal form *text* of the policy whose hash is *name*."""
        put_policy(self._files, name, text)

    @property
    def full(self) -> bool:
        """Whether so much waits that it must be written before more is taken."""
        # Copied, here and below: a thread may take places over while the event loop asks.
        many = any(len(lane.waiting) >= self._chunk for lane in list(self._lanes.values()))
        return many or self._bytes >= _BYTES

    @property
    def waiting(self) -> int:
        """How many records wait to be written."""
        return sum(len(lane.waiting) for lane in list(self._lanes.values()))

    def ahead(self) -> frozenset[Place]:
        """Return the places of which something waits: after a flush, for records of others to be read.

        Requests wait for nothing, signals for requests, decisions for both: some place is never ahead.
        """
        return frozenset(place for place, lane in list(self._lanes.items()) if lane.waiting)

    def positions(self) -> Mapping[Place, int]:
        """Return up to where each place is committed."""
        return {place: lane.begin for place, lane in list(self._lanes.items())}

    def flush(self) -> bool:
        """Write and commit every row that is ready; return whether there was any."""
        moved = False
        for place in sorted(self._lanes, key=_order):
            while self._flushed(self._lanes[place]):
                moved = True
        return moved

    def care(self, now: float) -> None:
        """Merge small files, drop what is too old, remove what dead writers left (*now* in s).

        What is as young as a slow writer's, or as those who read what was merged may need it, is left alone.
        """
        places, keeping = list(self._lanes), self._keeping
        changed = {place for place in places if compact(self._files, place)}
        if keeping.retention is not None and retain(self._files, keeping.retention, now, places):
            changed.update(places)
        for place in changed:
            self._lookup.know(place, commits_in(self._files, place))
        sweep(self._files, now - keeping.merged_s)
        settle(self._files, places, before=now - _GRACE_S)

    def _decoded(self, envelope: Envelope) -> Any:  # noqa: ANN401 - a record of any kind
        if envelope.topic == DECISIONS:
            decision = decision_of(self._codec, envelope)
            return None if isinstance(decision, Unreadable) else decision
        try:
            record = self._codec.decode(envelope.value)
        except UndecodableError:
            return None
        return record if isinstance(record, KINDS[table_name(envelope.topic) or ""]) else None

    def _flushed(self, lane: _Lane) -> bool:
        rows = []
        for envelope, record in lane.waiting[: self._chunk]:
            row = self._row(envelope, record)
            if row is None:
                break
            rows.append(row)
        if not rows and (lane.waiting or not (lane.unreadable or lane.lost)):
            return False
        rest = lane.waiting[len(rows) :]
        end = rest[0][0].offset if rest else lane.position
        self._write(lane, rows, end)
        self._bytes -= sum(_size(row.envelope) for row in rows)
        lane.waiting = rest
        lane.begin = end
        lane.unreadable = [offset for offset in lane.unreadable if offset >= end]
        self._gaps += [(lane.place, *stretch) for stretch in lane.lost if stretch[0] < end]
        lane.lost = [stretch for stretch in lane.lost if stretch[0] >= end]
        return True

    def _row(self, envelope: Envelope, record: Any) -> Row | None:  # noqa: ANN401 - any record
        """Return what is archived of *record*; None while something that it refers to was not read."""
        if envelope.topic == CONTROL_POLICY:
            return Row(envelope, record, NONE)
        if isinstance(record, Request | Result):
            return Row(envelope, record, record.tenant)
        tenant = self._tenant(envelope.partition, record.origin)
        if tenant is None:
            return None
        if not isinstance(record, Decision):
            return Row(envelope, record, tenant)
        inputs = record.meta.inputs
        used = [((signals_topic(i.role), envelope.partition), i.offset) for i in inputs]
        sets = {(i.role, i.offset): self._lookup.signals(*each) for i, each in zip(inputs, used, strict=True)}
        for each, found in zip(used, sets.values(), strict=True):
            if found is None and not self._written(*each):
                return None
        return Row(envelope, case_of(envelope, record, sets), tenant)

    def _tenant(self, partition: int, origin: Any) -> str | None:  # noqa: ANN401 - an Origin, or None
        if origin is None or origin.partition != partition:
            return NOBODY
        if not self._read((REQUESTS, partition), origin.offset):
            return None
        return self._lookup.tenant(partition, origin.offset) or NOBODY

    def _read(self, place: Place, offset: int) -> bool:
        lane = self._lanes.get(place)
        return lane is None or lane.finished or lane.position > offset

    def _written(self, place: Place, offset: int) -> bool:
        """Tell whether nothing that is yet to come, or to be written, can have *offset*."""
        lane = self._lanes.get(place)
        if lane is None or lane.begin > offset:
            return True
        # `begin` moves by commits only: where a topic holds nothing any more, there is none to come.
        unwritten = lane.waiting[0][0].offset if lane.waiting else lane.position
        return unwritten > offset or (lane.finished and not lane.waiting)

    def _write(self, lane: _Lane, rows: Sequence[Row], end: int) -> None:
        topic, partition = lane.place
        table = table_name(topic) or ""
        folders: dict[str, list[Row]] = {}
        for row in rows:
            if isinstance(row.record, PolicyPublished):
                put_policy(self._files, row.record.policy_hash, row.record.text)
            folder = f"{table}/date={_date(row.envelope.timestamp)}/tenant={quote(row.tenant, safe='')}"
            folders.setdefault(folder, []).append(row)
        stored = []
        for folder, some in sorted(folders.items()):
            name = file_name(lane.place, folder, (lane.begin, end))
            columns = table_of(table, some, bodies=self._bodies).drop_columns(["tenant"])
            self._files.put_table(name, columns)
            span = some[0].envelope.offset, some[-1].envelope.offset
            stored.append(Stored(name, table, len(some), *span, _origins(topic, some), columns.nbytes))
            self.rows[table] = self.rows.get(table, 0) + len(some)
        passed = tuple(offset for offset in lane.unreadable if offset < end)
        # A gap ends at the latest where a record begins, so that none reaches over the end of a chunk.
        lost = tuple(stretch for stretch in lane.lost if stretch[0] < end)
        commit = Commit(topic, partition, lane.begin, end, tuple(stored), passed, lost)
        put_commit(self._files, commit)
        self._lookup.add(commit)
        self.chunks += 1
        for each in stored:
            self._files.reveal(each.name)


def _size(envelope: Envelope) -> int:
    return len(envelope.value or b"")


def _order(place: Place) -> tuple[bool, bool, Place]:
    """Requests first, then signals: others look them up."""
    return place[0] != REQUESTS, table_name(place[0]) != "signals", place


def _origins(topic: str, rows: Sequence[Row]) -> tuple[int, int] | None:
    if topic != COMPLETIONS:
        return None
    offsets = [row.record.origin.offset for row in rows if isinstance(row.record, Completion)]
    return min(offsets), max(offsets)


def _date(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%d")
