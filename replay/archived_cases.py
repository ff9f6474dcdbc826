"""Every archived decision with what it was made of, as `replay.cases` has them of a log.

An archive holds the decisions with all their fields, the SignalSets that they name, the schemas and the
policies, so that they can be made again from it as from the log that it was made of.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from agents.errors import InvalidRecord
from replay.archive_care import summed
from replay.archive_commits import Commit, Manifest, Stored, commits_in
from replay.archive_files import Files
from replay.archive_groups import Groups
from replay.cases import Case, Unreadable, case_at
from replay.decide import Evidence
from replay.span import Span
from schemas.codec import SchemaEntry
from schemas.decision import Decision
from schemas.shape import Packer, avro_name
from schemas.signal import SignalSet
from schemas.topics import DECISIONS, signals_topic

_STEP = 4096
"""Decisions whose signals are in memory at once."""
_UNREADABLE = "it could not be read when it was archived"
_Sets = dict[tuple[str, int], SignalSet | None]


def archived_evidence(where: str, span: Span | None = None) -> Evidence:
    """Return what the archive at *where* has of the decisions in *span*.

    Records of `decisions` that could not be read are there whatever the span: an archive has their place,
    and not their time. Raises `InvalidRecord` if there is none; so does reading what was damaged, or
    written by a build whose records had fewer fields.
    """
    files = Files(where)
    manifest = Manifest(files)
    commits = commits_in(files)
    schemas = {
        int(key): SchemaEntry(int(key), row["record"], row["fingerprint"], row["schema"])
        for key, row in manifest.document["schemas"].items()
    }
    return Evidence(
        _cases(files, commits, span or Span()),
        manifest.policies(),
        schemas,
        summed(gone for commit in commits for gone in commit.dropped),
    )


def _cases(files: Files, commits: list[Commit], span: Span) -> Iterator[Case | Unreadable]:
    signals = _Signals(files, commits)
    for commit in commits:
        if commit.topic != DECISIONS:
            continue
        unread: list[Case | Unreadable] = [
            Unreadable(commit.partition, offset, _UNREADABLE)
            for offset in commit.unreadable
            if offset >= commit.skip
        ]
        yield from heapq.merge(_read(files, commit, signals, span), unread, key=_offset)


def _offset(case: Case | Unreadable) -> int:
    return case.offset


def _read(files: Files, commit: Commit, signals: _Signals, span: Span) -> Iterator[Case | Unreadable]:
    """Yield the decisions of *commit* that count, in order, by however many files."""
    columns = ["offset", "timestamp", "schema_id", *_names(Decision)]
    tables = [_table(files, stored, columns) for stored in commit.files]
    if not tables:
        return
    table = pa.concat_tables(tables)
    times = table["timestamp"].cast(pa.int64())
    inside = pc.and_(pc.greater_equal(times, span.since), pc.less(times, span.until))
    table = table.filter(pc.and_(inside, pc.greater_equal(table["offset"], commit.skip))).sort_by("offset")
    packer: Packer[Decision] = Packer(Decision)
    for start in range(0, len(table), _STEP):
        rows = table.slice(start, _STEP).to_pylist()
        places = [(row.pop("offset"), row.pop("schema_id"), row.pop("timestamp")) for row in rows]
        made = [_unpacked(packer, row, files) for row in rows]
        sets = signals.named_by(commit.partition, made)
        for (offset, schema_id, _), decision in zip(places, made, strict=True):
            yield case_at((commit.partition, offset, schema_id), decision, sets)


class _Signals:
    """The SignalSets in *commits*, looked up by the decisions that name them."""

    def __init__(self, files: Files, commits: Iterable[Commit]) -> None:
        self._files = files
        self._groups = Groups(files, _names(SignalSet))
        self._packer: Packer[SignalSet] = Packer(SignalSet)
        self._commits: dict[tuple[str, int], list[Commit]] = {}
        for commit in commits:
            self._commits.setdefault(commit.place, []).append(commit)

    def named_by(self, partition: int, decisions: Iterable[Decision]) -> _Sets:
        """Return what the archive has of the sets that *decisions* name, by role and offset."""
        wanted: dict[str, set[int]] = {}
        for decision in decisions:
            for used in decision.meta.inputs:
                wanted.setdefault(used.role, set()).add(used.offset)
        return {
            (role, offset): found
            for role, offsets in wanted.items()
            for offset, found in self._at((signals_topic(role), partition), offsets)
        }

    def _at(self, place: tuple[str, int], offsets: set[int]) -> Iterator[tuple[int, SignalSet]]:
        wanted = pa.array(sorted(offsets), pa.int64())
        low, high = min(offsets), max(offsets)
        near = [
            (commit, stored)
            for commit in self._commits.get(place, [])
            for stored in commit.files
            if stored.first <= high and stored.last >= max(low, commit.skip)
        ]
        for commit, stored in near:
            for table in self._groups.between(stored, max(low, commit.skip), high):
                for row in table.filter(pc.is_in(table["offset"], value_set=wanted)).to_pylist():
                    yield row.pop("offset"), _unpacked(self._packer, row, self._files)


def _names(cls: type) -> list[str]:
    return [avro_name(field) for field in dataclasses.fields(cls)]


def _table(files: Files, stored: Stored, columns: list[str]) -> pa.Table:
    try:
        return files.parquet(stored.name, []).read(columns=columns)
    except pa.ArrowInvalid as error:
        raise InvalidRecord(f"{files.path(stored.name)}: damaged: {error}") from None


def _unpacked(packer: Packer[Any], row: Mapping[str, Any], files: Files) -> Any:  # noqa: ANN401 - a record
    try:
        return packer.unpack(dict(row))
    except (KeyError, TypeError):
        raise InvalidRecord(
            f"{files.root}: a {packer.cls.__name__} lacks fields that this build reads, since an earlier one "
            "archived it: decide from the kept log, or make the archive again from it"
        ) from None
