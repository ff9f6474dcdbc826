"""Logged decisions in batches, from an archive or from a kept log: what both have as columns.

A partition is read in the order of its offsets, a batch at a time; of a request the first decision
counts, later ones are repeats. What its calls cost is looked up by the place of the request.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from agents.engine.block import FIELDS, TEXTS
from replay.archive_care import summed
from replay.archive_commits import MANIFEST, Commit, Manifest, commits_in
from replay.archive_files import Files
from replay.archive_rows import KINDS, NOBODY, Row, table_of
from replay.archive_shadow import COLUMNS, Aside, about
from replay.archiver import CHUNK
from replay.asked import requests_in
from replay.bills import JOB, PAID, Part
from replay.cases import Case, cases_in
from replay.logged_facts import facts_in, times_of, whole
from replay.outcomes import Asked, Codes, Flags, Words, coded
from replay.span import Span, SpannedView
from replay.view import LogView
from schemas.codec import Codec, UndecodableError
from schemas.envelope import Envelope
from schemas.logdir import LogDir
from schemas.request import Request
from schemas.sealed import Body
from schemas.topics import COMPLETIONS, DECISIONS, FEEDBACK, REQUESTS, signals_topic

Floats = NDArray[np.float64]

_CORE = ("outcome", "failure", "decision", "chosen")
_FACTS = ("core.facts.name", "core.facts.value")
_COLUMNS = [
    "offset",
    "request_id",
    "origin.offset",
    "timestamp",
    *(f"core.{name}" for name in (*_CORE, "recipe", "policy_hash")),
    *_FACTS,
]
_OBSERVED = "observations.list.element."
_BILLED = ["offset", "origin.offset", *JOB, "model", *PAID]
_ASKING = ["offset", "accepted_at", "source", "data_class"]
_RATED = ["offset", "request_id", "source", "metric", "reward", "observation", "arrived_at"]
_NO_BODY = Body(0, b"")
_CODED = [
    *(f"core.{name}" for name in (*_CORE, "recipe", "policy_hash")),
    *(f"{name}.list.element" for name in _FACTS),
    *(_OBSERVED + name for name in TEXTS),
]
"""What few texts are in: read as codes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some decisions and, row by row, the signals that each was made of and whose (in `tenants`) it was."""

    tenant: Codes
    tenants: Sequence[str]
    decisions: pa.Table
    signals: pa.Array

    def only(self, rows: Flags) -> Batch:
        """Return the rows that *rows* marks."""
        at = pa.array(np.flatnonzero(rows))
        return Batch(self.tenant[rows], self.tenants, self.decisions.take(at), self.signals.take(at))


class Logged(Protocol):
    """Where logged decisions are."""

    def partitions(self) -> list[int]:
        """Return the partitions that hold any decision."""
        ...

    def batches(
        self, partition: int, more: Sequence[str] = (), seen: Collection[str] = FIELDS
    ) -> Iterator[Batch]:
        """Yield the decisions of *partition* in order, with columns *more* (``core.draw``) if it has them.

        Of an observation the fields *seen* are read; others may be there.
        """
        ...

    def requests(self, partition: int) -> Iterator[pa.Table]:
        """Yield the requests of *partition* in order, as `asking` has them."""
        ...

    def feedback(self) -> Iterator[pa.Table]:
        """Yield all feedback, one partition after another."""
        ...

    def completions(self, partition: int) -> list[Part]:
        """Return the completions of *partition* in order, in parts that are yet to be read."""
        ...

    def policies(self) -> Mapping[str, str]:
        """Return the normal form of each policy, by hash."""
        ...

    def bodied(self, partition: int, offsets: Collection[int]) -> Iterator[tuple[int, Request]]:
        """Yield the requests of *partition* at *offsets* with all that was kept of them."""
        ...

    def dropped(self) -> Mapping[str, Mapping[str, Any]]:
        """Return by table what is known to have been there and is not: rows, first and last day."""
        ...


def logged_at(where: str, span: Span | None = None) -> Logged:
    """Return the archive or kept log at *where*, of which the decisions in *span* are seen.

    Raises `LogDirError` if it is neither, `InvalidRecord`.
    """
    if is_archive(where):
        archived = ArchivedLog(Files(where))
        return archived if span is None else Spanned(archived, span)
    kept = LogDir(where)
    return KeptLog(kept if span is None else SpannedView(kept, span))


def is_archive(where: str) -> bool:
    """Tell whether what lies at *where* claims to be an archive."""
    if "://" in where:
        return True
    try:
        return "format" in json.loads((Path(where) / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False


class Spanned:
    """The decisions of *logged* in *span*, with all their completions."""

    def __init__(self, logged: Logged, span: Span) -> None:
        self._span = span
        self.partitions, self.completions = logged.partitions, logged.completions
        self.policies, self.dropped = logged.policies, logged.dropped
        self.requests, self.feedback, self.bodied = logged.requests, logged.feedback, logged.bodied
        self._logged = logged

    def batches(
        self, partition: int, more: Sequence[str] = (), seen: Collection[str] = FIELDS
    ) -> Iterator[Batch]:
        """Yield those in the span."""
        for batch in self._logged.batches(partition, more, seen):
            times = times_of(batch.decisions)
            inside = (times >= self._span.since) & (times < self._span.until)
            if inside.any():
                yield batch if inside.all() else batch.only(inside)


class ArchivedLog:
    """The archive in *files*; raises `InvalidRecord` if there is none."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.manifest = Manifest(files)
        self._commits = commits_in(files)

    def partitions(self) -> list[int]:
        """Return the partitions that hold any decision."""
        return sorted({each.partition for each in self._commits if each.topic == DECISIONS})

    def batches(
        self, partition: int, more: Sequence[str] = (), seen: Collection[str] = FIELDS
    ) -> Iterator[Batch]:
        """Yield the decisions of *partition* in order, a row group at a time."""
        columns = [*_COLUMNS, *(_OBSERVED + name for name in FIELDS if name in seen), *more]
        aside = self._aside(partition)
        for commit in self._of(DECISIONS, partition):
            for stored in commit.files:
                tenant = unquote(stored.folder.split("/tenant=")[1])
                file = self._files.parquet(stored.name, _CODED)
                for group in range(file.num_row_groups):
                    table = _unskipped(file.read_row_group(group, columns=columns, use_threads=False), commit)
                    whose = np.zeros(len(table), dtype=np.int64)
                    signals = whole(table["observations"])
                    yield Batch(whose, [tenant], table, aside.joined(table, signals))

    def _aside(self, partition: int) -> Aside:
        """Return what was observed in shadow alone, where any policy asks for that."""
        if not any("shadow_signals" in text for text in self.policies().values()):
            return Aside([])
        commits = [
            c for c in self._commits if c.topic.startswith(signals_topic("")) and c.partition == partition
        ]
        files = [(commit, stored.name) for commit in commits for stored in commit.files]
        return Aside(
            [Part(partial(self._sets, *each), about(self._files.parquet(each[1], []))) for each in files]
        )

    def _sets(self, commit: Commit, name: str) -> pa.Table:
        return _unskipped(self._files.parquet(name, []).read(columns=COLUMNS), commit)

    def requests(self, partition: int) -> Iterator[pa.Table]:
        """Yield the requests of *partition*, a file at a time; whose they are if bodies were kept."""
        for commit in self._of(REQUESTS, partition):
            for stored in commit.files:
                file = self._files.parquet(stored.name, [])
                sealed = [name for name in ("subject",) if name in file.schema_arrow.names]
                yield asking(_unskipped(file.read(columns=[*_ASKING, *sealed]), commit))

    def feedback(self) -> Iterator[pa.Table]:
        """Yield all feedback, a file at a time."""
        for commit in self._commits:
            for stored in commit.files if commit.topic == FEEDBACK else ():
                yield _unskipped(self._files.parquet(stored.name, []).read(columns=_RATED), commit)

    def completions(self, partition: int) -> list[Part]:
        """Return the completions of *partition*, a file each."""
        places = [(each, stored) for each in self._of(COMPLETIONS, partition) for stored in each.files]
        return [Part(partial(self._billed, each, stored.name), stored.origins) for each, stored in places]

    def _billed(self, commit: Commit, name: str) -> pa.Table:
        return _unskipped(
            self._files.parquet(name, ["model"]).read(columns=_BILLED, use_threads=False), commit
        )

    def policies(self) -> Mapping[str, str]:
        """Return the normal form of each policy, by hash."""
        return self.manifest.policies()

    def dropped(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what was dropped by age."""
        return summed(gone for commit in self._commits for gone in commit.dropped)

    def bodied(self, partition: int, offsets: Collection[int]) -> Iterator[tuple[int, Request]]:
        """Yield the requests at *offsets*, none of an archive without bodies."""
        if self.manifest.identity.bodies and offsets:
            yield from requests_in(self._files, self._of(REQUESTS, partition), offsets)

    def _of(self, topic: str, partition: int) -> list[Commit]:
        return [each for each in self._commits if each.place == (topic, partition)]


def _unskipped(table: pa.Table, commit: Commit) -> pa.Table:
    """Return the rows that count in *commit*."""
    return table.filter(pc.greater_equal(table["offset"], commit.skip)) if commit.skip else table


class KeptLog:
    """The log *view*, made into the archive's columns as it is read."""

    def __init__(self, view: LogView) -> None:
        self._view = view
        self._codec = Codec(view.schemas().values(), compiled=True)

    def partitions(self) -> list[int]:
        """Return the partitions of `decisions`."""
        return list(range(self._view.topics().get(DECISIONS, 0)))

    def batches(
        self, partition: int, more: Sequence[str] = (), seen: Collection[str] = FIELDS
    ) -> Iterator[Batch]:
        """Yield the decisions of *partition* in order, some of one tenant at a time, with every column."""
        del more, seen
        tenants = self._tenants(partition)
        rows: list[Row] = []
        for envelope, case in cases_in(self._view, self._codec, partition):
            if not isinstance(case, Case):
                continue
            rows.append(Row(envelope, case, tenants.get(case.decision.origin.offset, NOBODY)))
            if len(rows) == CHUNK // 8:
                yield _batch(rows)
                rows = []
        if rows:
            yield _batch(rows)

    def bodied(self, partition: int, offsets: Collection[int]) -> Iterator[tuple[int, Request]]:
        """Yield the requests at *offsets*."""
        for row in self._read(REQUESTS, partition, frozenset(offsets)):
            yield row.envelope.offset, row.record

    def _tenants(self, partition: int) -> dict[int, str]:
        return {row.envelope.offset: row.record.tenant for row in self._read(REQUESTS, partition)}

    def completions(self, partition: int) -> list[Part]:
        """Return the completions of *partition*, one part."""
        return [Part(lambda: table_of(COMPLETIONS, list(self._read(COMPLETIONS, partition))))]

    def requests(self, partition: int) -> Iterator[pa.Table]:
        """Yield the requests of *partition*, read without their bodies."""
        rows = [
            Row(row.envelope, replace(row.record, body=_NO_BODY, headers=None), row.record.tenant)
            for row in self._read(REQUESTS, partition)
        ]
        yield asking(table_of(REQUESTS, rows, bodies=True))

    def feedback(self) -> Iterator[pa.Table]:
        """Yield all feedback, one partition after another."""
        for partition in range(self._view.topics().get(FEEDBACK, 0)):
            yield table_of(FEEDBACK, list(self._read(FEEDBACK, partition)))

    def _read(self, topic: str, partition: int, only: AbstractSet[int] | None = None) -> Iterator[Row]:
        """Yield what can be read of *topic* in *partition*, of given offsets *only* if they are given.

        Nothing if there is no such topic.
        """
        if partition >= self._view.topics().get(topic, 0):
            return
        for envelope in _at(self._view.read(topic, partition), only):
            try:
                record = self._codec.decode_as(KINDS[topic][0], envelope.value)
            except UndecodableError:
                continue
            yield Row(envelope, record, "")

    def policies(self) -> Mapping[str, str]:
        """Return the normal form of each policy, by hash."""
        return self._view.policies()

    def dropped(self) -> Mapping[str, Mapping[str, Any]]:
        """Return nothing: a kept log is whole."""
        return {}


def _at(envelopes: Iterable[Envelope], only: AbstractSet[int] | None) -> Iterator[Envelope]:
    """Yield those of *envelopes*, which are in order, at the offsets *only*; all if it is None."""
    if only is None:
        yield from envelopes
        return
    last = max(only, default=-1)
    for envelope in envelopes:
        if envelope.offset > last:
            return
        if envelope.offset in only:
            yield envelope


def asking(table: pa.Table) -> pa.Table:
    """Return what an evaluation takes of requests: when, by which way, which class, and whose.

    `subject` is null where it is sealed with a key, under which no two are alike, or was not archived.
    """
    plain = [None] * len(table)
    if "subject" in table.column_names:
        sealed = whole(table["subject"])
        plain = [None if s is None or s["alg"] != "none" else s.get("bytes") for s in sealed.to_pylist()]
    return table.select(_ASKING).append_column("subject", pa.array(plain, pa.binary()))


def _batch(rows: list[Row]) -> Batch:
    whose, names = coded([pa.array([row.tenant for row in rows])])
    table = table_of(DECISIONS, rows)
    return Batch(whose, [name for (name,) in names], table, whole(table["observations"]))


def asked(batch: Batch) -> Asked:
    """Return *batch* as a decider takes it."""
    core = whole(batch.decisions["core"])
    models, exploring = facts_in(core.field("facts"))
    kinds, triples = coded([models, core.field("recipe"), exploring])
    return Asked(words(batch.decisions), kinds, triples, batch.signals)


def outcomes(batch: Batch) -> tuple[Codes, list[tuple[Any, ...]]]:
    """Return a number a row of *batch*, and outcome, failure, decision and chosen of each number."""
    core = whole(batch.decisions["core"])
    return coded([core.field(name) for name in _CORE])


def words(decisions: pa.Table) -> Words:
    """Return the request ids, two words each."""
    ids = whole(decisions["request_id"])
    data = np.frombuffer(ids.buffers()[1], dtype=">u8")[2 * ids.offset : 2 * (ids.offset + len(ids))]
    return data.reshape(-1, 2).astype(np.uint64)


def places(table: pa.Table) -> Codes:
    """Return the offset of each row's request in `requests`."""
    offsets: Codes = whole(table["origin"]).field("offset").to_numpy(zero_copy_only=False)
    return offsets
