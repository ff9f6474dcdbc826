"""What an archive holds of roles that observed in shadow only: joined to the decisions by their request.

No decision names such a set, and it may come after the decision was archived, so it is joined as it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

COLUMNS = ["offset", "origin.offset", "request_id", "role", "shadow", "observations"]
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


def joined(decisions: pa.Table, observations: pa.Array, beside: Beside) -> pa.Array:
    """Return the *observations* of each of *decisions* with those beside."""
    offsets = (origin["offset"] for origin in decisions["origin"].to_pylist())
    keys = list(zip(offsets, decisions["request_id"].to_pylist(), strict=True))
    if not any(key in beside for key in keys):
        return observations
    fields = {field.name: _bare(field.type) for field in observations.type.value_type}
    added = [[{name: each[name] for name in fields} for each in beside.get(key, ())] for key in keys]
    rows = [[*one, *more] for one, more in zip(observations.to_pylist(), added, strict=True)]
    return pa.array(rows, pa.list_(pa.struct(fields.items())))


def _bare(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_
