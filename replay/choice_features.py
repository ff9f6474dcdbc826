"""Logged signals as numbers a reward model can take: of each signal whether it matched, and its scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from agents.engine.block import flat_of
from replay.bandit import Floats, Ints
from replay.outcomes import coded

_SCORES = ("confidence", "value")
_LEAST_LEVELS = 2


@dataclass(slots=True)
class Features:
    """Observations so far, by signal: rows, and what each says."""

    parts: dict[tuple[str, str], list[tuple[Ints, dict[str, Floats]]]] = field(default_factory=dict)

    def add(self, signals: pa.Array, start: int) -> None:
        """Add the observations of *signals*, whose first row is number *start*."""
        flat = flat_of(signals, 0, len(signals))
        total = int(flat.offsets[-1])
        if not total:
            return
        rows = np.repeat(np.arange(len(signals)), np.diff(flat.offsets)) + start
        codes, keys = coded([flat.fields["type"], flat.fields["name"]])
        states = flat.fields["status"]
        known = np.array([s == "ok" for s in states.to_pylist()], dtype=np.bool_)
        numbers = {name: _floats(flat.fields[name]) for name in ("matched", *_SCORES)}
        for code, key in enumerate(keys):
            own = np.flatnonzero((codes == code) & known)
            said = {name: values[own] for name, values in numbers.items()}
            self.parts.setdefault(key, []).append((rows[own], said))

    def columns(self, rows: int, kept: Ints) -> dict[str, Any]:
        """Return ``x_<type>:<name>`` and its scores over *kept* of *rows* rows, but what never varies."""
        found: dict[str, Any] = {}
        for (kind, name), parts in sorted(self.parts.items()):
            for what in ("matched", *_SCORES):
                column = np.full(rows, np.nan)
                for at, said in parts:
                    # Reversed, so that of two observations of a signal the first is what stays.
                    column[at[::-1]] = said[what][::-1]
                column = column[kept]
                if len(np.unique(column[~np.isnan(column)])) < _LEAST_LEVELS:
                    continue
                suffix = "" if what == "matched" else f":{what}"
                found[f"x_{kind}:{name}{suffix}"] = pa.array(column, pa.float64(), from_pandas=True)
        return found


def _floats(column: pa.Array) -> Floats:
    numbers: Floats = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)
