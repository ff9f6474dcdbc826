"""What an archive holds of roles that observed in shadow only: joined to the decisions by their request.

No decision names such a set, and it may come after the decision was archived, so it is joined as it is read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from replay.archive_files import TableFile
from replay.bills import Part
from replay.logged_facts import whole

COLUMNS = ["offset", "origin.offset", "request_id", "role", "shadow", "observations"]
_KEPT_ROWS = 262_144
"""Sets with anything in shadow that are kept in memory, about."""
_CHUNK = 4_096
"""Decisions whose observations are plain values at once."""
Beside = Mapping[tuple[int, bytes], list[dict[str, Any]]]


def beside_of(tables: Iterable[pa.Table]) -> Beside:
    """Return the observations of sets in *tables* (of `signals`) that are in shadow alone, by request.

    Of several sets of one role about one request the first counts.
    """
    found: dict[tuple[int, bytes], list[dict[str, Any]]] = {}
    seen: set[tuple[int, bytes, str]] = set()
    for table in tables:
        for row in table.to_pylist():
            rows = [
                dict(zip(row["observations"], each, strict=True))
                for each in zip(*row["observations"].values(), strict=True)
            ]
            hidden = set(row["shadow"] or ())
            key = (row["origin"]["offset"], row["request_id"])
            if not hidden or (*key, row["role"]) in seen:
                continue
            if all(f"{each['type']}:{each['name']}" in hidden for each in rows):
                seen.add((*key, row["role"]))
                found.setdefault(key, []).extend(rows)
    return found


class Aside:
    """What *parts* of a partition hold of roles in shadow alone, read as far as some decisions need it.

    Of each part it is known which requests it is about, so that memory does not grow with the log: what is
    held are some neighbouring parts, of which only sets that have anything in shadow.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._loaded: OrderedDict[int, pa.Table] = OrderedDict()

    def joined(self, decisions: pa.Table, observations: pa.Array) -> pa.Array:
        """Return the *observations* of each of *decisions* with those beside."""
        offsets = whole(decisions["origin"]).field("offset")
        span = pc.min_max(offsets).as_py()
        if not self._parts or not len(offsets):
            return observations
        keys = list(zip(offsets.to_pylist(), decisions["request_id"].to_pylist(), strict=True))
        beside = beside_of(self._between(span["min"], span["max"]))
        if not any(key in beside for key in keys):
            return observations
        starts = range(0, len(keys), _CHUNK)
        chunks = ((keys[s : s + _CHUNK], observations.slice(s, _CHUNK)) for s in starts)
        return pa.concat_arrays([_with(rows, some, beside) for rows, some in chunks])

    def _between(self, low: int, high: int) -> Iterator[pa.Table]:
        """Yield the sets about requests from *low* to *high*, in the order of the log."""
        for number, part in enumerate(self._parts):
            if part.bills(low, high):
                table = self._table(number)
                at = whole(table["origin"]).field("offset")
                yield table.filter(pc.and_(pc.greater_equal(at, low), pc.less_equal(at, high)))

    def _table(self, number: int) -> pa.Table:
        if number in self._loaded:
            self._loaded.move_to_end(number)
            return self._loaded[number]
        table = self._parts[number].load()
        hidden = pc.greater(pc.fill_null(pc.list_value_length(table["shadow"]), 0), 0)
        self._loaded[number] = table = table.filter(hidden)
        while len(self._loaded) > 1 and sum(map(len, self._loaded.values())) > _KEPT_ROWS:
            self._loaded.popitem(last=False)
        return table


def _with(keys: Sequence[tuple[int, bytes]], observations: pa.Array, beside: Beside) -> pa.Array:
    fields = {field.name: _bare(field.type) for field in observations.type.value_type}
    added = [[{name: each[name] for name in fields} for each in beside.get(key, ())] for key in keys]
    rows = [[*one, *more] for one, more in zip(observations.to_pylist(), added, strict=True)]
    return pa.array(rows, pa.list_(pa.struct(fields.items())))


def about(file: TableFile) -> tuple[int, int] | None:
    """Return the first and last request that the sets in *file* are about, None if it does not say."""
    told = file.metadata
    paths = [told.schema.column(number).path for number in range(told.num_columns)]
    at = paths.index("origin.offset")
    groups = [told.row_group(number).column(at).statistics for number in range(told.num_row_groups)]
    if not groups or not all(each is not None and each.has_min_max for each in groups):
        return None
    return min(each.min for each in groups), max(each.max for each in groups)


def _bare(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_
