"""Labels: for some requests, whether a signal ought to match; from a file of lines or columns.

Columns: `request_id` (32 hex digits), `label` (1, true or yes; 0, false or no), `cluster`? (a session or
user; rows of one are not independent), `signal`? (type:name, where several are swept).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from agents.errors import InvalidRecord
from schemas.identity import parse_id

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_TRUE = frozenset({"1", "1.0", "true", "yes"})
_FALSE = frozenset({"0", "0.0", "false", "no"})


@dataclass(frozen=True)
class Labels:
    """By signal as written ("" where a file names none): request id -> label and cluster."""

    by_signal: Mapping[str, Mapping[tuple[int, int], tuple[bool, str]]]

    def among(self, ids: Words) -> Bools:
        """Return which of *ids* (rows of two words) have a label of any signal."""
        if not len(ids):
            return np.zeros(0, dtype=np.bool_)
        wanted = {key for labels in self.by_signal.values() for key in labels}
        keys = np.array(sorted(wanted), dtype=np.uint64).reshape(-1, 2)
        high = np.isin(ids[:, 0], keys[:, 0])
        found = np.zeros(len(ids), dtype=np.bool_)
        at = np.flatnonzero(high)
        found[at] = [(int(a), int(b)) in wanted for a, b in ids[at]]
        return found

    def of(self, leaf: str) -> Mapping[tuple[int, int], tuple[bool, str]]:
        """Return the labels of signal *leaf*: those that name it, else those that name none."""
        return {**self.by_signal.get("", {}), **self.by_signal.get(leaf, {})}


@dataclass(frozen=True)
class Sample:
    """Labelled rows of one signal that the log has a score of: score, label and cluster number (n)."""

    score: Floats
    label: Bools
    cluster: NDArray[np.int64]
    missing: int
    unscored: int


def labels_in(path: Path, leaves: Sequence[str]) -> Labels:
    """Return the labels in *path* (CSV, JSON lines or Parquet); raises `InvalidRecord` naming the row."""
    found: dict[str, dict[tuple[int, int], tuple[bool, str]]] = {}
    for number, row in enumerate(_rows(path), start=1):
        try:
            key, leaf, value = _row(row)
        except ValueError as error:
            raise InvalidRecord(f"{path}: row {number}: {error}") from None
        if leaf and leaf not in leaves:
            continue
        if not leaf and len(leaves) > 1:
            raise InvalidRecord(
                f"{path}: several thresholds are swept, so a column signal must say whose label"
            )
        found.setdefault(leaf, {}).setdefault(key, value)
    if not found:
        raise InvalidRecord(f"{path}: no label of {', '.join(leaves)}")
    return Labels(found)


def _row(row: Mapping[str, Any]) -> tuple[tuple[int, int], str, tuple[bool, str]]:
    if "request_id" not in row or "label" not in row:
        raise ValueError("columns request_id and label are needed")
    raw = row["request_id"]
    try:
        request_id = raw if isinstance(raw, bytes) else parse_id(str(raw).strip())
    except ValueError:
        raise ValueError("request_id is no 32 hex digits") from None
    text = str(row["label"]).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError("label is none of 1, true, yes, 0, false, no")
    key = (int.from_bytes(request_id[:8], "big"), int.from_bytes(request_id[8:], "big"))
    cluster = row.get("cluster")
    own = request_id.hex() if cluster in (None, "") else str(cluster)
    return key, str(row.get("signal") or "").strip(), (text in _TRUE, own)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        try:
            yield from pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidRecord(f"{path}: not a readable Parquet file ({type(error).__name__})") from None
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRecord(f"{path}: not UTF-8 text") from None
    if not text.lstrip().startswith("{"):
        yield from csv.DictReader(text.splitlines())
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _object(path, number, line)


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        row = None
    if not isinstance(row, dict):
        raise InvalidRecord(f"{path}: line {number}: not a JSON object")
    return row


def sample_of(labels: Labels, leaf: str, ids: Words, score: Floats) -> Sample:
    """Return the labelled rows of *leaf* among *ids* with their *score*; those without one are counted."""
    wanted = labels.of(leaf)
    rows = [(i, wanted[key]) for i, key in enumerate(map(tuple, ids.tolist())) if key in wanted]
    at = np.array([i for i, _ in rows], dtype=np.int64)
    known = ~np.isnan(score[at]) if len(at) else np.zeros(0, dtype=np.bool_)
    names = [cluster for _, (_, cluster) in rows]
    _, cluster = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    label = np.array([flag for _, (flag, _) in rows], dtype=np.bool_)
    return Sample(
        score[at][known] if len(at) else np.zeros(0),
        label[known],
        cluster.reshape(-1)[known].astype(np.int64),
        missing=len(wanted) - len(rows),
        unscored=int((~known).sum()),
    )
