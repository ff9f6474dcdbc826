"""Run the worlds, judge coverage cell by cell, and plant the defects that must be seen.

A harness that cannot fail proves nothing: each sabotage breaks one thing in how a log is evaluated, and the
same judgement must then fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy import stats
from sklearn.tree import DecisionTreeRegressor

from replay.bandit import BanditLog
from replay.calibration.worlds import Cell, truth, world
from replay.diagnostics import diagnose
from replay.estimators import Model, estimator
from replay.evaluation import DEFAULT, Method
from replay.intervals import METHODS, Clustered
from replay.reward_model import cross_fitted

BAND = (0.93, 0.97)
CONFIDENCE = 0.999
FEWEST_JUDGED = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One world: its cell and seed, the truth, estimate and interval (NaN if refused), why it was refused."""

    rows: int
    overlap: str
    seed: int
    truth: float
    value: float
    low: float
    high: float
    ess: float
    carrying_rows: float
    refusals: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """One cell: worlds, how many were refused, and what the others' intervals did.

    `low` and `high` are the exact (Clopper and Pearson 1934) 99.9 % interval of the coverage.
    """

    rows: int
    overlap: str
    worlds: int
    refused: int
    covered: float
    low: float
    high: float
    width: float
    bias: float

    @property
    def judged(self) -> bool:
        """Whether enough worlds were not refused."""
        return self.worlds - self.refused >= FEWEST_JUDGED

    @property
    def failed(self) -> bool:
        """Whether the coverage cannot be within the band."""
        return self.judged and (self.high < BAND[0] or self.low > BAND[1])


def _wrong_propensity(log: BanditLog) -> BanditLog:
    """Log the probability of a policy that explores half as much, as a forgotten setting would."""
    if log.logged is None:
        return log
    even = 1.0 / len(log.actions)
    base = log.logged.min(axis=1, keepdims=True) / even
    greedy = (log.logged - base * even) / (1.0 - base)
    stated = (1.0 - base / 2.0) * greedy + base / 2.0 * even
    return replace(log, logged=stated, propensity=stated[np.arange(log.n), log.taken])


def _no_clusters(log: BanditLog) -> BanditLog:
    return replace(log, cluster=np.arange(log.n, dtype=np.int64))


def _memorised(log: BanditLog) -> Model:
    """Return what a tree predicts that was grown on the very rows, without folds."""
    shown = log.observed
    tree = DecisionTreeRegressor(random_state=0)
    tree.fit(np.column_stack([log.taken[shown], log.features[shown]]), log.reward[shown])
    columns = [
        tree.predict(np.column_stack([np.full(log.n, action), log.features]))
        for action in range(len(log.actions))
    ]
    return Model(np.stack(columns, axis=1))


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A planted defect: what it does to the log that is evaluated, and where the reward model comes from."""

    log: Callable[[BanditLog], BanditLog] = lambda log: log
    model: Callable[[BanditLog], Model] = cross_fitted


SABOTAGES: Mapping[str, Sabotage] = {
    "wrong_propensity": Sabotage(log=_wrong_propensity),
    "no_cross_fitting": Sabotage(model=_memorised),
    "no_clusters": Sabotage(log=_no_clusters),
}


def evaluated(cell: Cell, seed: int, sabotage: Sabotage | None = None) -> Row:
    """Return what the default method says of one world."""
    planted = sabotage or Sabotage()
    log = planted.log(world(cell, seed))
    method = Method()
    found = diagnose(log)
    interval = None
    if not found.refusals:
        terms = estimator[DEFAULT]().terms(log, planted.model(log)).difference
        interval = METHODS[method.interval](Clustered.of(terms, log.cluster, found.independent), method.level)
    nothing = (float("nan"),) * 3
    return Row(
        cell.rows,
        cell.overlap,
        seed,
        truth(cell.epsilon),
        *((interval.value, interval.low, interval.high) if interval is not None else nothing),
        found.ess,
        found.carrying,
        "; ".join(found.refusals),
    )


def coverage(cell: Cell, rows: Iterable[Row]) -> Coverage:
    """Return the coverage of *cell* over its *rows* that were not refused."""
    mine = [row for row in rows if (row.rows, row.overlap) == (cell.rows, cell.overlap)]
    kept = [row for row in mine if not row.refusals]
    hits = sum(row.low <= row.truth <= row.high for row in kept)
    low, high = _exact(hits, len(kept))
    none = float("nan")
    return Coverage(
        cell.rows,
        cell.overlap,
        len(mine),
        len(mine) - len(kept),
        hits / len(kept) if kept else none,
        low,
        high,
        float(np.mean([row.high - row.low for row in kept])) if kept else none,
        float(np.mean([row.value - row.truth for row in kept])) if kept else none,
    )


def _exact(hits: int, n: int) -> tuple[float, float]:
    if n == 0:
        return 0.0, 1.0
    found = stats.binomtest(hits, n).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def problems(cells: Iterable[Coverage]) -> list[str]:
    """Return what is wrong, in words; a run that judged no cell at all has shown nothing."""
    found = list(cells)
    out = [
        f"{c.rows} rows, {c.overlap} overlap: coverage {c.covered:.4f}, exact 99.9 % interval "
        f"[{c.low:.4f}, {c.high:.4f}] is outside [{BAND[0]}, {BAND[1]}]"
        for c in found
        if c.failed
    ]
    # Where there is plenty of overlap a refusal is a defect too: of the weights, or of the rule.
    out += [
        f"{c.rows} rows, {c.overlap} overlap: {c.refused} of {c.worlds} worlds refused"
        for c in found
        if c.overlap == "good" and c.refused > c.worlds / 2
    ]
    return out


def as_row(row: Row) -> dict[str, object]:
    """Return *row* as plain values."""
    return asdict(row)
