"""Feedback as rewards: which ratings of a log count, and what becomes of the others.

Of a request's ratings by one metric the first to arrive counts, so that a rating which is delivered again,
or revised after the answer was seen to matter, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from agents.errors import InvalidRecord
from replay.bandit import Bools, Floats, Ints
from replay.logged_facts import whole

Ids = NDArray[np.bytes_]
"""Request ids, 16 bytes each."""


@dataclass(frozen=True, slots=True)
class Rewards:
    """The first rating of each request by *metric*; `ids` ascend.

    `observation` is the probability with which it was observed, NaN where its source does not say.
    `repeated` are later ratings of a request, `unusable` those whose reward is no number.
    """

    metric: str
    sources: tuple[str, ...]
    ids: Ids
    reward: Floats
    observation: Floats
    arrived: Ints
    repeated: int
    unusable: int

    def of(self, ids: Ids) -> tuple[Ints, Bools]:
        """Return the row of each of *ids*, and whether there is one."""
        if not len(self.ids):
            return np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return at.astype(np.int64), self.ids[at] == ids


def rewards(tables: Iterable[pa.Table], metric: str = "", source: str = "") -> Rewards:
    """Return the ratings in *tables* by *metric* ("" is the only one there is), of *source* ("" is any).

    Raises `InvalidRecord` where that leaves several metrics, or none of those that there are.
    """
    parts = [table.select(SCHEMA.names).cast(SCHEMA) for table in tables]
    table = pa.concat_tables(parts).combine_chunks() if parts else SCHEMA.empty_table()
    if source:
        table = _only(table, "source", source)
    table = _only(table, "metric", metric or _sole(table))
    reward = _numbers(table, "reward")
    finite = np.isfinite(reward)
    ids = _ids(table)[finite]
    arrived = _numbers(table, "arrived_at")[finite].astype(np.int64)
    order = np.lexsort((arrived, ids))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = ids[order][1:] != ids[order][:-1]
    kept = order[first]
    observation = _numbers(table, "observation")[finite][kept]
    return Rewards(
        metric=metric or _sole(table),
        sources=tuple(sorted(set(table["source"].to_pylist()))),
        ids=ids[kept],
        reward=reward[finite][kept],
        observation=np.where((observation > 0.0) & (observation <= 1.0), observation, np.nan),
        arrived=arrived[kept],
        repeated=int((~first).sum()),
        unusable=int((~finite).sum()),
    )


SCHEMA = pa.schema(
    [
        ("request_id", pa.binary(16)),
        ("source", pa.string()),
        ("metric", pa.string()),
        ("reward", pa.float64()),
        ("observation", pa.float64()),
        ("arrived_at", pa.int64()),
    ]
)
"""The columns of feedback that matter; `arrived_at` is in ms."""


def _sole(table: pa.Table) -> str:
    names = sorted(set(table["metric"].to_pylist()))
    if len(names) > 1:
        raise InvalidRecord(
            f"the log has feedback by several metrics: {', '.join(names)}; choose one with --reward"
        )
    return names[0] if names else ""


def _only(table: pa.Table, column: str, wanted: str) -> pa.Table:
    found = table.filter(pc.equal(table[column], wanted))
    if len(table) and not len(found):
        names = ", ".join(sorted(set(table[column].to_pylist()))[:10])
        raise InvalidRecord(f"the log has no feedback with {column} {wanted!r}; it has: {names}")
    return found


def _numbers(table: pa.Table, column: str) -> Floats:
    numbers: Floats = np.asarray(table[column].to_numpy(), dtype=np.float64)
    return numbers


def _ids(table: pa.Table) -> Ids:
    return ids_of(table["request_id"])


def ids_of(column: pa.ChunkedArray) -> Ids:
    """Return a column of 16 bytes each as an array."""
    ids = whole(column)
    data = np.frombuffer(ids.buffers()[1] or b"", dtype="S16")
    return data[ids.offset : ids.offset + len(ids)]
