"""Random policies and signals, and the nested columns that logged signals come in."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from schemas.signal import Observations

_STRUCT = pa.struct(
    [
        ("type", pa.string()),
        ("name", pa.string()),
        ("label", pa.string()),
        ("matched", pa.bool_()),
        ("confidence", pa.float64()),
        ("value", pa.float64()),
        ("status", pa.string()),
    ]
)


def column(rows: Sequence[Observations]) -> pa.Array:
    """Return *rows* as a list of structs, a row each."""
    names = [field.name for field in _STRUCT]
    return pa.array(
        [[{name: getattr(seen, name) for name in names} for seen in row] for row in rows],
        type=pa.list_(_STRUCT),
    )
