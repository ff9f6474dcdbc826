"""Archived requests as records again, with their bodies: for what observes them anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import fields
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from replay.archive_commits import Commit
from replay.archive_files import Files
from schemas.request import Request
from schemas.shape import Packer, avro_name

_COLUMNS = [avro_name(field) for field in fields(Request) if field.name != "tenant"]


def requests_in(
    files: Files, commits: Iterable[Commit], offsets: Collection[int]
) -> Iterator[tuple[int, Request]]:
    """Yield those at *offsets* of the requests in *commits*, which were archived with bodies."""
    packer: Packer[Request] = Packer(Request)
    wanted = pa.array(sorted(offsets), pa.int64())
    low, high = min(offsets), max(offsets)
    near = ((c, f) for c in commits for f in c.files if f.first <= high and low <= f.last)
    for commit, stored in near:
        table = files.parquet(stored.name, []).read(columns=["offset", *_COLUMNS])
        table = table.filter(pc.is_in(table["offset"], value_set=wanted))
        tenant = unquote(stored.folder.rpartition("/tenant=")[2])
        for row in table.to_pylist():
            offset = row.pop("offset")
            if offset >= commit.skip:
                yield offset, packer.unpack(row | {"tenant": tenant})
