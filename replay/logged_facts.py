"""What is read off columns of logged decisions: their facts, their policies, when they were made."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agents.decision import REQUESTED_MODEL
from agents.exploration import FACT
from replay.outcomes import Codes, coded


def facts_in(facts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the requested model and what the account of exploring said, "" where a fact is not there."""
    names, values = facts.field("name"), facts.field("value")
    for known in ((REQUESTED_MODEL,), (REQUESTED_MODEL, FACT)):
        # The facts of a log mostly have one shape: then the columns lie at equal distances.
        width, flat = len(known), names.flatten()
        alike = len(flat) == width * len(names) and bool((np.diff(names.offsets.to_numpy()) == width).all())
        if alike and flat[:width].to_pylist() == list(known) and _repeats(flat, known):
            every = values.flatten()
            if width == 1:
                return every, _same("", len(names))
            columns = [every.take(pa.array(np.arange(at, len(every), width))) for at in range(width)]
            return columns[0], columns[1]
    pairs = [dict(zip(n, v, strict=True)) for n, v in zip(names.to_pylist(), values.to_pylist(), strict=True)]
    found = [pa.array([pair.get(key, "") for pair in pairs], pa.string()) for key in (REQUESTED_MODEL, FACT)]
    return found[0], found[1]


def _same(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([text]))


def _repeats(flat: pa.Array, known: tuple[str, ...]) -> bool:
    encoded = flat if pa.types.is_dictionary(flat.type) else flat.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).reshape(-1, len(known))
    names = encoded.dictionary.to_pylist()
    return all(bool((codes[:, at] == names.index(name)).all()) for at, name in enumerate(known))


def hashes(decisions: pa.Table) -> dict[str, int]:
    """Return how many decisions of *decisions* were made under each policy."""
    codes, found = coded([whole(decisions["core"]).field("policy_hash")])
    return {name: int(count) for (name,), count in zip(found, np.bincount(codes), strict=True)}


def times(decisions: pa.Table) -> tuple[int, int]:
    """Return the first and the last timestamp (ms) of *decisions*."""
    found = pc.min_max(decisions["timestamp"].cast(pa.int64())).as_py()
    return int(found["min"]), int(found["max"])


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return *column* in one piece; without a copy where it is."""
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined


def times_of(decisions: pa.Table) -> Codes:
    """Return the timestamp (ms) of each of *decisions*."""
    found: Codes = decisions["timestamp"].cast(pa.int64()).to_numpy()
    return found
