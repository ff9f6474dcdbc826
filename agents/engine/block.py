"""From nested signals in Arrow, as they are logged, to one array per slot.

A column is a list of structs, or a struct of lists, with the fields of an observation: type, name,
label, matched, confidence, value, status; text is plain or dictionary-encoded. Rows of one role and
policy hold the same signals in the same order: that is noticed by comparing bytes, which is far
cheaper than decoding text. Rows that differ are scattered one observation at a time. A field of numbers
that nobody asks for need not be there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from agents.engine.slots import ABSENT, LEVELLED, Slots, level_base
from agents.errors import InvalidRecord

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TEXTS = ("type", "name", "label", "status")
FLAGS = (*TEXTS, "matched")
NUMBERS = ("confidence", "value")
FIELDS = (*FLAGS, *NUMBERS)
_OK = "ok"
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(slots=True)
class Block:
    """Some rows: of every slot what is known, one array each; the arrays are the block's own.

    Numbers that were not asked for are NaN. `unknown` is None where nothing is. `place` is where in its row
    each slot was observed, a number where that is the same in every row.
    """

    rows: int
    matched: list[Bools]
    confidence: list[Floats]
    value: list[Floats]
    unknown: list[Bools | None]
    place: list[Ints | int]
    scores: list[Floats] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Flat:
    """The observations of some rows, one after another; row i has those from offset i to i + 1."""

    offsets: Ints
    fields: Mapping[str, pa.Array]

    @property
    def rows(self) -> int:
        """Return how many rows there are."""
        return len(self.offsets) - 1

    @property
    def width(self) -> int:
        """Return how many observations every row has, or -1 where that differs."""
        widths = np.diff(self.offsets)
        return int(widths[0]) if len(widths) and bool((widths == widths[0]).all()) else -1


def flat_of(column: pa.Array, start: int, stop: int, needed: Collection[str] = FIELDS) -> Flat:
    """Return the fields *needed* of rows *start* to *stop* of *column*.

    Raises `InvalidRecord` if it has not all of them or is of another type.
    """
    part = column.slice(start, stop - start)
    kind = part.type
    if part.null_count:
        raise InvalidRecord("a row has no signals at all (null); write an empty list")
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        offsets = np.asarray(part.offsets, dtype=np.int64)
        values = part.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        there = {kind.value_type.field(i).name for i in range(kind.value_type.num_fields)}
        missing = [name for name in needed if name not in there]
        if missing:
            raise InvalidRecord(f"signals have no field {missing[0]}; needed are {', '.join(needed)}")
        fields = {name: _sliced(values.field(name), values) for name in needed}
        return Flat(offsets - offsets[0], fields)
    if pa.types.is_struct(kind):
        lists = {kind.field(i).name: part.field(i) for i in range(kind.num_fields)}
        lists = {name: _sliced(child, part) for name, child in lists.items() if pa.types.is_list(child.type)}
        if lists.keys() >= set(needed):
            return _parallel({name: lists[name] for name in needed})
    raise InvalidRecord(f"signals are a list of structs or a struct of lists, not {kind}")


def _sliced(child: pa.Array, parent: pa.Array) -> pa.Array:
    """Return *child* as far as *parent* reaches: some versions hand out children unsliced."""
    return child if len(child) == len(parent) else child.slice(parent.offset, len(parent))


def _parallel(lists: Mapping[str, pa.Array]) -> Flat:
    offsets = np.asarray(lists["type"].offsets, dtype=np.int64)
    fields = {}
    for name, each in lists.items():
        own = np.asarray(each.offsets, dtype=np.int64)
        if not np.array_equal(own - own[0], offsets - offsets[0]):
            raise InvalidRecord(f"the lists type and {name} of a row differ in length")
        fields[name] = each.values.slice(int(own[0]), int(own[-1] - own[0]))
    return Flat(offsets - offsets[0], fields)


def block_of(flat: Flat, slots: Slots, *, absent_is_unknown: bool) -> Block:
    """Return *flat* by slot; a signal that is not observed is unknown or, if not so, did not match."""
    width = flat.width
    if width > 0 and all(_repeats(flat.fields[name], flat.rows, width) for name in TEXTS[:3]):
        return _uniform(flat, slots, width, absent_is_unknown=absent_is_unknown)
    return _scattered(flat, slots, absent_is_unknown=absent_is_unknown)


def _repeats(texts: pa.Array, rows: int, width: int) -> bool:
    """Tell whether every row of *texts* is the first again."""
    if texts.null_count:
        return False
    if pa.types.is_dictionary(texts.type):
        return is_periodic(texts.indices.to_numpy(zero_copy_only=False), width)
    if not pa.types.is_string(texts.type):
        return False
    _, offset_buffer, data = texts.buffers()
    bounds = np.frombuffer(offset_buffer, dtype=np.int32)[texts.offset : texts.offset + rows * width + 1]
    if not is_periodic(np.diff(bounds), width):
        return False
    size = int(bounds[width] - bounds[0])
    if size == 0 or data is None:
        return True
    return is_periodic(np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]], size)


def is_periodic(values: NDArray[np.integer[Any]], width: int) -> bool:
    """Tell whether *values* are the first *width* of them over and over."""
    # One comparison of all with all, where one of each row with the first would be many of a few.
    return bool((values[width:] == values[:-width]).all())


def _uniform(flat: Flat, slots: Slots, width: int, *, absent_is_unknown: bool) -> Block:
    first = {name: flat.fields[name].slice(0, width).to_pylist() for name in TEXTS[:3]}
    layout = slots.layout(list(zip(first["type"], first["name"], first["label"], strict=True)))
    rows = flat.rows
    lost = _lost(flat)
    matched = _columns(_bools(flat.fields["matched"]), rows, width)
    unknowns = None if lost is None else _columns(lost, rows, width)
    if unknowns is not None:
        matched &= ~unknowns
    asked = [name for name in NUMBERS if name in flat.fields]
    numbers = {name: _columns(_floats(flat.fields[name]), rows, width) for name in asked}
    for each in numbers.values() if unknowns is not None else ():
        each[unknowns] = np.nan
    never = np.ones(rows, dtype=np.bool_) if absent_is_unknown else None
    unknown: list[Bools | None] = []
    for place in layout.status:
        observed = None if unknowns is None or place < 0 else unknowns[place]
        unknown.append(never if place == ABSENT else observed)
    false = np.zeros(rows, dtype=np.bool_)
    nan = np.full(rows, np.nan)
    confidence, value = (
        [nan if p < 0 or name not in numbers else numbers[name][p] for p in layout.positions]
        for name in NUMBERS
    )
    return Block(
        rows,
        [false if p < 0 else matched[p] for p in layout.positions],
        confidence,
        value,
        unknown,
        list(layout.positions),
    )


def _columns(flat: NDArray[_Scalar], rows: int, width: int) -> NDArray[_Scalar]:
    """Return a copy with a row per observation of the layout."""
    return np.array(flat.reshape(rows, width).T, order="C")


def _lost(flat: Flat) -> Bools | None:
    """Return which observations are not ok, or None if all are."""
    status = flat.fields["status"]
    if pa.types.is_dictionary(status.type):
        ok = [i for i, text in enumerate(status.dictionary.to_pylist()) if text == _OK]
        codes = status.indices.to_numpy(zero_copy_only=False)
        lost = codes != ok[0] if ok else np.ones(len(codes), dtype=np.bool_)
        return lost if lost.any() else None
    if len(status) == 0 or (_repeats(status, len(status), 1) and status[0].as_py() == _OK):
        return None
    lost = _bools(pc.not_equal(pc.fill_null(status, ""), _OK))
    return lost if lost.any() else None


def _bools(array: pa.Array) -> Bools:
    filled = pc.fill_null(array, fill_value=False) if array.null_count else array
    flags: Bools = filled.to_numpy(zero_copy_only=False)
    return flags


def _floats(array: pa.Array) -> Floats:
    numbers: Floats = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def _scattered(flat: Flat, slots: Slots, *, absent_is_unknown: bool) -> Block:
    rows, count = flat.rows, len(slots.keys)
    places, source = _places(flat, slots)
    lost = _lost(flat)
    lost = np.zeros(int(flat.offsets[-1]), dtype=np.bool_) if lost is None else lost
    taken = lost[source]
    matched = np.zeros(count * rows, dtype=np.bool_)
    numbers = {name: np.full(count * rows, np.nan) for name in NUMBERS}
    # Of several observations under one key the last counts: numpy assigns in order.
    matched[places] = _bools(flat.fields["matched"])[source] & ~taken
    for name in numbers.keys() & flat.fields.keys():
        numbers[name][places] = np.where(taken, np.nan, _floats(flat.fields[name])[source])
    seen = np.zeros(count * rows, dtype=np.bool_)
    seen[places] = True
    unknown = np.full(count * rows, absent_is_unknown, dtype=np.bool_)
    unknown[places] = taken
    where = np.full(count * rows, ABSENT, dtype=np.int64)
    where[places] = source - np.repeat(flat.offsets[:-1], np.diff(flat.offsets))[source]
    return Block(
        rows,
        list(matched.reshape(count, rows)),
        list(numbers["confidence"].reshape(count, rows)),
        list(numbers["value"].reshape(count, rows)),
        _unknowns(slots, unknown.reshape(count, rows), seen.reshape(count, rows)),
        list(where.reshape(count, rows)),
    )


def _unknowns(slots: Slots, unknown: Bools, seen: Bools) -> list[Bools | None]:
    """Return what is unknown of each slot: a level of complexity is known if the rule is."""
    found: list[Bools | None] = []
    for slot, key in enumerate(slots.keys):
        if key in slots.published or not key:
            found.append(None)
        elif key.startswith(LEVELLED) and (base := slots.index.get(level_base(key))) is not None:
            found.append(np.where(seen[slot], unknown[slot], unknown[base]))
        else:
            found.append(unknown[slot])
    return found


def _places(flat: Flat, slots: Slots) -> tuple[Ints, Ints]:
    """Return slot * rows + row, and the observation that belongs there, in order of observation."""
    codes, names = _names(flat)
    row = np.repeat(np.arange(flat.rows, dtype=np.int64), np.diff(flat.offsets))
    base = np.array([_slot(slots, f"{kind}:{name}") for kind, name, _ in names], dtype=np.int64)
    full = np.array([_slot(slots, f"{k}:{n}:{x}" if x else f"{k}:{n}") for k, n, x in names], dtype=np.int64)
    bare = np.array([not label for _, _, label in names], dtype=np.bool_)
    # A labelled observation stands for its signal only where none without a label does: those come later.
    slot = np.concatenate([np.where(bare, -1, base)[codes], full[codes]])
    source = np.tile(np.arange(len(codes), dtype=np.int64), 2)
    kept = slot >= 0
    slot, source = slot[kept], source[kept]
    return slot * flat.rows + row[source], source


def _slot(slots: Slots, key: str) -> int:
    return -1 if key in slots.published else slots.index.get(key, -1)


def _names(flat: Flat) -> tuple[Ints, list[tuple[str, str, str]]]:
    """Return a number per observation, and the type, name and label that each number stands for."""
    combined = np.zeros(int(flat.offsets[-1]), dtype=np.int64)
    columns = []
    for name in TEXTS[:3]:
        column = flat.fields[name]
        if not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(column, null_encoding="encode")
        texts = column.dictionary.to_pylist() or [""]
        combined = combined * len(texts) + column.indices.to_numpy(zero_copy_only=False)
        columns.append(texts)
    kinds, names, labels = columns
    distinct, codes = np.unique(combined, return_inverse=True)
    found = []
    for code in distinct:
        rest, third = divmod(int(code), len(labels))
        first, second = divmod(rest, len(names))
        found.append((kinds[first] or "", names[second] or "", labels[third] or ""))
    return codes.reshape(-1), found
