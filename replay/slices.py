"""Verdicts on parts of the traffic: by tenant, by decision, by any column, without crying wolf.

Twenty slices without any effect would give a false verdict in most logs if each were tested by itself. Holm
(1979) keeps the chance of any false verdict below 1 - level whatever the slices have in common: they overlap
(a tenant's requests are also some decision's), and sessions span them. Benjamini and Hochberg control the
share of false verdicts instead, and need independence, or the factor of Benjamini and Yekutieli.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from replay.bandit import BanditLog, Bools, Floats, Ints
from replay.diagnostics import diagnose
from replay.intervals import Clustered, Interval, clustered_t, freedom
from replay.verdict import Word

CONTROL = "holm"


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows whose *column* has *value*, and the paired difference on them.

    `difference` is one of intervals that hold together (Bonferroni over the slices tested); `p` is of the
    slice alone, `adjusted` Holm's, both NaN where the verdict was refused. Holm can tell a little more than
    the intervals: a verdict may come with one that just holds 0.
    """

    column: str
    value: str
    rows: int
    difference: Interval
    p: float
    adjusted: float
    verdict: Word
    refusals: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values; numbers that do not exist are None."""
        told = asdict(self) | {"refusals": list(self.refusals)}
        told["difference"] = {k: _number(v) for k, v in asdict(self.difference).items()}
        return told | {"p": _number(self.p), "adjusted": _number(self.adjusted)}


@dataclass(frozen=True)
class Cut:
    """What slices are cut from: all rows, which of them (n) can tell, and those rows' terms and clusters.

    A mean of terms within `rounding` is none. `refusals` of the whole log refuse each of its slices.
    """

    log: BanditLog
    kept: Bools
    terms: Floats
    cluster: Ints
    rounding: float = 0.0
    refusals: tuple[str, ...] = ()


def sliced(cut: Cut, labels: Mapping[str, Sequence[str]], level: float = 0.95) -> tuple[Slice, ...]:
    """Return every slice of *cut*: a column of *labels* (n each) and a value; verdicts hold together.

    A slice that cannot tell by the rules for a whole log is refused, and not among those tested.
    """
    found = [
        _alone(cut, column, value, np.array([each == value for each in values], dtype=np.bool_))
        for column, values in labels.items()
        for value in sorted(set(values))
    ]
    tested = [number for number, (each, _) in enumerate(found) if not each.refusals]
    adjusted = dict(zip(tested, holm([found[number][0].p for number in tested]), strict=True))
    together = 1.0 - (1.0 - level) / max(len(tested), 1)
    return tuple(
        _judged(each, adjusted[number], clustered_t(data, together), 1.0 - level)
        if number in adjusted
        else each
        for number, (each, data) in enumerate(found)
    )


def _alone(cut: Cut, column: str, value: str, rows: Bools) -> tuple[Slice, Clustered]:
    found = diagnose(cut.log.rows(rows))
    refusals = tuple(dict.fromkeys((*found.refusals, *cut.refusals)))
    own = rows[cut.kept]
    none = Interval(float("nan"), float("nan"), float("nan"))
    if not own.any():
        reasons = (*refusals, "no row of it has a reward")
        empty = Clustered(np.zeros(0), np.zeros(0))
        return Slice(
            column, value, found.n, none, none.value, none.value, "not_enough_evidence", reasons
        ), empty
    data = Clustered.of(
        cut.terms[own], np.unique(cut.cluster[own], return_inverse=True)[1], found.independent
    )
    p = none.value if refusals else 1.0 if abs(data.mean) <= cut.rounding else p_value(data)
    alone = clustered_t(data, 0.95)
    return Slice(column, value, found.n, alone, p, none.value, "not_enough_evidence", refusals), data


def _judged(found: Slice, adjusted: float, interval: Interval, risk: float) -> Slice:
    word: Word = "not_enough_evidence"
    if adjusted <= risk:
        word = "better" if interval.value > 0.0 else "worse"
    return replace(found, adjusted=adjusted, difference=interval, verdict=word)


def p_value(data: Clustered) -> float:
    """Return the two-sided p-value of a mean of 0, by `clustered_t`'s statistic; 1 without any spread."""
    if not data.error > 0.0:
        return 1.0
    return float(2.0 * stats.t.sf(abs(data.mean) / data.error, freedom(data)))


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: the largest (m - rank) p of those at most as large, at most 1."""
    values = np.array(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values))))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(each) for each in adjusted]


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
