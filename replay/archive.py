"""An archive: Parquet by date and tenant, derived from a log, that a kill at any moment leaves right.

A chunk of a partition's records is written to files named by topic, partition and first and last
offset; then one small file commits the chunk and lists them. Only what is committed counts, so no
row is missing or doubled. What a kill left uncommitted is removed by the next run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from agents.errors import InvalidRecord
from replay.archive_files import Files
from replay.archive_rows import KINDS, NOBODY, SIGNALS, Row, table_of
from replay.cases import Case, cases_in
from replay.view import LogView
from schemas.codec import Codec, UndecodableError
from schemas.completion import Result
from schemas.envelope import Envelope
from schemas.request import Request
from schemas.topics import DECISIONS, REQUESTS

CHUNK = 65_536
"""Records a chunk, at most."""

MANIFEST = "manifest.json"
_COMMITS = "_commits"
_POLICIES = "_policies"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A log and what its manifest says of where it is from."""

    view: LogView
    cluster_id: str
    prefix: str


@dataclass(slots=True)
class Archived:
    """What a run added: rows by table, and records that are none of ours."""

    rows: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    unreadable: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"rows": dict(sorted(self.rows.items())), "chunks": self.chunks, "unreadable": self.unreadable}


@dataclass(frozen=True, slots=True)
class Commit:
    """A chunk that is whole: its files by table, in the order of their rows."""

    topic: str
    partition: int
    first: int
    last: int
    files: Mapping[str, tuple[str, ...]]


def commits_in(files: Files) -> list[Commit]:
    """Return every committed chunk, by topic, partition and offset."""
    found = []
    for name in files.names(_COMMITS):
        if name.rpartition("/")[2].startswith("_"):
            continue
        row = json.loads(files.read_bytes(name))
        listed = {kind: tuple(names) for kind, names in row["files"].items()}
        found.append(Commit(row["topic"], row["partition"], row["first"], row["last"], listed))
    return sorted(found, key=lambda each: (each.topic, each.partition, each.first))


def archive(source: Source, files: Files, *, bodies: bool = False, chunk: int = CHUNK) -> Archived:
    """Add to the archive in *files* whatever of *source* it does not hold yet.

    Raises `InvalidRecord` if the archive is of another cluster, or was made with other columns.
    """
    _manifest(source, files, bodies=bodies)
    done = commits_in(files)
    _sweep(files, done)
    reached: dict[tuple[str, int], int] = {}
    for each in done:
        place = (each.topic, each.partition)
        reached[place] = max(reached.get(place, -1), each.last)
    archived = Archived()
    writer = _Writer(files, archived, bodies)
    codec = Codec(source.view.schemas().values(), compiled=True)
    topics = source.view.topics()
    for partition in range(max((topics.get(topic, 0) for topic in KINDS), default=0)):
        tenants = _tenants(source.view, codec, partition)
        for topic in KINDS:
            if partition >= topics.get(topic, 0):
                continue
            after = reached.get((topic, partition), -1)
            found = _rows(_Place(source.view, codec, topic, partition, after), tenants, archived)
            for rows in _chunks(found, chunk):
                writer.chunk(topic, partition, rows)
    return archived


def _manifest(source: Source, files: Files, *, bodies: bool) -> None:
    schemas = {str(each.schema_id): _schema(each) for each in source.view.schemas().values()}
    old = json.loads(files.read_bytes(MANIFEST)) if MANIFEST in files.names() else None
    if old is not None and (old["cluster_id"], old["bodies"]) != (source.cluster_id, bodies):
        raise InvalidRecord(
            f"{files.root}: an archive of cluster {old['cluster_id']!r} with bodies={old['bodies']}, not of "
            f"{source.cluster_id!r} with bodies={bodies}; give another --out"
        )
    policies = source.view.policies()
    known = {} if old is None else old["policies"]
    for name in sorted(set(policies) - set(known)):
        files.put_bytes(f"{_POLICIES}/{name}.json", policies[name].encode())
    document = {
        "format": _FORMAT,
        "cluster_id": source.cluster_id,
        "prefix": source.prefix,
        "bodies": bodies,
        "schemas": ({} if old is None else old["schemas"]) | schemas,
        "policies": {name: f"{_POLICIES}/{name}.json" for name in sorted({*known, *policies})},
    }
    if document != old:
        files.put_json(MANIFEST, document)


def _schema(entry: Any) -> dict[str, str]:  # noqa: ANN401 - a SchemaEntry
    return {"record": entry.record, "fingerprint": entry.fingerprint, "schema": entry.text}


def _sweep(files: Files, done: Iterable[Commit]) -> None:
    """Remove what a kill left: files that are not whole, and those of chunks that were not committed."""
    committed = {name for each in done for names in each.files.values() for name in names}
    for name in files.names():
        last = name.rpartition("/")[2]
        if last.startswith("_tmp-") or (last.endswith(".parquet") and name not in committed):
            files.delete(name)


@dataclass(frozen=True, slots=True)
class _Place:
    view: LogView
    codec: Codec
    topic: str
    partition: int
    after: int


def _tenants(view: LogView, codec: Codec, partition: int) -> dict[int, str]:
    """Return whose request each offset of *partition* holds."""
    found: dict[int, str] = {}
    if partition < view.topics().get(REQUESTS, 0):
        for envelope in view.read(REQUESTS, partition):
            try:
                request: Request = codec.decode_as(Request, envelope.value)
            except UndecodableError:
                continue
            found[envelope.offset] = request.tenant
    return found


def _rows(place: _Place, tenants: Mapping[int, str], archived: Archived) -> Iterator[Row]:
    """Yield what *place* holds after the offset that is archived already."""
    if place.topic == DECISIONS:
        for envelope, case in cases_in(place.view, place.codec, place.partition, place.after):
            if isinstance(case, Case):
                yield Row(envelope, case, tenants.get(case.decision.origin.offset, NOBODY))
            else:
                archived.unreadable += 1
        return
    for envelope in place.view.read(place.topic, place.partition):
        if envelope.offset <= place.after:
            continue
        try:
            record = place.codec.decode_as(KINDS[place.topic], envelope.value)
        except UndecodableError:
            archived.unreadable += 1
            continue
        yield Row(envelope, record, _tenant(record, envelope, tenants))


def _tenant(record: Any, envelope: Envelope, tenants: Mapping[int, str]) -> str:  # noqa: ANN401 - any record
    if isinstance(record, Request | Result):
        return record.tenant
    origin = record.origin
    same = origin is not None and origin.partition == envelope.partition
    return tenants.get(origin.offset, NOBODY) if same else NOBODY


def _chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Writer:
    def __init__(self, files: Files, archived: Archived, bodies: bool) -> None:  # noqa: FBT001 - a field
        self._files = files
        self._archived = archived
        self._bodies = bodies

    def chunk(self, topic: str, partition: int, rows: list[Row]) -> None:
        """Write *rows* by date and tenant, then commit them."""
        first, last = rows[0].envelope.offset, rows[-1].envelope.offset
        name = f"{topic}-{partition}-{first}-{last}"
        folders: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            folders.setdefault((_date(row.envelope.timestamp), row.tenant), []).append(row)
        written: dict[str, list[str]] = {}
        for (date, tenant), some in sorted(folders.items()):
            for kind, table in self._tables(topic, some):
                path = f"{kind}/date={date}/tenant={quote(tenant, safe='')}/{name}.parquet"
                self._files.put_table(path, table.drop_columns(["tenant"]))
                written.setdefault(kind, []).append(path)
                self._archived.rows[kind] += len(table)
        commit = {"topic": topic, "partition": partition, "first": first, "last": last, "files": written}
        self._files.put_json(f"{_COMMITS}/{name}.json", commit)
        self._archived.chunks += 1

    def _tables(self, topic: str, rows: list[Row]) -> Iterator[tuple[str, pa.Table]]:
        if topic == DECISIONS:
            yield SIGNALS, table_of(SIGNALS, rows)
            rows = [Row(row.envelope, row.record.decision, row.tenant) for row in rows]
        yield topic, table_of(topic, rows, bodies=self._bodies)


def _date(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%d")
