"""Logged scores of swept signals, and the same signals as another threshold would have had them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from agents.engine.block import FIELDS, Flat, flat_of
from replay.sweeping.axes import Axis

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """The signals of some rows; `place` and `score` are, for each axis, of the rows' observations of it.

    `place` is where among all observations the axis' own stands, -1 where it was not observed; `score` its
    value (its confidence where it has none), NaN where it has neither or is not ok.
    """

    flat: Flat
    place: Sequence[Ints]
    score: Sequence[Floats]

    @classmethod
    def of(cls, signals: pa.Array, axes: Sequence[Axis]) -> Scored:
        """Return *signals* with the scores of *axes*."""
        flat = flat_of(signals, 0, len(signals))
        places = [_place(flat, axis) for axis in axes]
        return cls(flat, places, [_score(flat, place) for place in places])

    def logged(self, axis: int) -> Bools:
        """Return which rows matched when they were logged."""
        flags = _flags(self.flat.fields["matched"])
        return (self.place[axis] >= 0) & flags[self.place[axis]]

    def under(self, thresholds: Sequence[float], rows: Ints | None = None) -> pa.Array:
        """Return the signals of *rows* (all if None) with each axis matched by its threshold.

        What was observed without a score stays as it was logged.
        """
        matched = _flags(self.flat.fields["matched"]).copy()
        for place, score, threshold in zip(self.place, self.score, thresholds, strict=True):
            known = ~np.isnan(score)
            matched[place[known]] = score[known] >= threshold
        fields = {**self.flat.fields, "matched": pa.array(matched)}
        structs = pa.StructArray.from_arrays([fields[name] for name in FIELDS], names=list(FIELDS))
        offsets = self.flat.offsets
        if rows is None:
            return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)
        widths = np.diff(offsets)[rows]
        starts = np.concatenate(([0], np.cumsum(widths)))
        within = np.arange(int(starts[-1])) - np.repeat(starts[:-1], widths)
        taken = structs.take(pa.array(np.repeat(offsets[:-1][rows], widths) + within))
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), taken)


def _place(flat: Flat, axis: Axis) -> Ints:
    hits = np.ones(int(flat.offsets[-1]), dtype=np.bool_)
    for name, wanted in (("type", axis.kind), ("name", axis.name)):
        hits &= _equal(flat.fields[name], wanted)
    row = np.repeat(np.arange(flat.rows), np.diff(flat.offsets))
    place = np.full(flat.rows, -1, dtype=np.int64)
    at = np.flatnonzero(hits)
    place[row[at]] = at
    return place


def _equal(texts: pa.Array, wanted: str) -> Bools:
    if pa.types.is_dictionary(texts.type):
        where = [code for code, text in enumerate(texts.dictionary.to_pylist()) if text == wanted]
        same: Bools = np.isin(texts.indices.to_numpy(zero_copy_only=False), where)
        return same
    return _flags(pc.equal(texts, wanted))


def _score(flat: Flat, place: Ints) -> Floats:
    if not int(flat.offsets[-1]):
        return np.full(flat.rows, np.nan)
    value, confidence = (_floats(flat.fields[name]) for name in ("value", "confidence"))
    score = np.where(np.isnan(value), confidence, value)
    score[~_equal(flat.fields["status"], "ok")] = np.nan
    found: Floats = np.where(place >= 0, score[place], np.nan)
    return found


def _flags(array: pa.Array) -> Bools:
    filled = pc.fill_null(array, fill_value=False) if array.null_count else array
    flags: Bools = filled.to_numpy(zero_copy_only=False)
    return flags


def _floats(array: pa.Array) -> Floats:
    numbers: Floats = np.array(array.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return numbers
