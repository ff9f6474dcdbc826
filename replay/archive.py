"""An archive made from a log: Parquet by date and tenant; run again, it adds what is new."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from replay.archive_commits import Identity, Place
from replay.archive_files import Files
from replay.archive_rows import table_name
from replay.archiver import CHUNK, Archiver
from replay.view import LogView
from schemas.envelope import Envelope

_STEP = 256
"""Records that are handed over at once."""


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


def archive(source: Source, files: Files, *, bodies: bool = False, chunk: int = CHUNK) -> Archived:
    """Add to the archive in *files* whatever of *source* it does not hold yet.

    Raises `InvalidRecord` if the archive is of another cluster, or was made with other columns.
    """
    identity = Identity(source.cluster_id, source.prefix, bodies)
    archiver = Archiver(files, identity, list(source.view.schemas().values()), chunk=chunk)
    for name, text in source.view.policies().items():
        archiver.policy(name, text)
    counts = {t: n for t, n in source.view.topics().items() if table_name(t) is not None}
    for partition in range(max(counts.values(), default=0)):
        places = [(topic, partition) for topic, count in sorted(counts.items()) if partition < count]
        archiver.assigned(places)
        records = _merged(source.view, places)
        while some := list(islice(records, _STEP)):
            for envelope in some:
                archiver.take((envelope.topic, envelope.partition), [envelope])
            if archiver.full:
                archiver.flush()
        for place in places:
            archiver.finished(place)
        archiver.flush()
        archiver.revoked(places)
    return Archived(Counter(archiver.rows), archiver.chunks, archiver.unreadable)


def _merged(view: LogView, places: list[Place]) -> Iterator[Envelope]:
    """Yield the records of *places* by time: what a record refers to comes shortly before it."""
    return heapq.merge(*(view.read(*place) for place in places), key=lambda envelope: envelope.timestamp)
