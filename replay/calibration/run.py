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
from replay.calibration.worlds import MOST, Cell, truth, world
from replay.diagnostics import Diagnostics, carrying_rows, diagnose
from replay.estimators import Model
from replay.evaluation import Method, Prepared, amiss, prepare
from replay.intervals import Interval

BAND = (0.93, 0.97)
CONFIDENCE = 0.999
FEWEST_JUDGED = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One world: its cell and seed, the truth, estimate and interval (NaN if refused), why it was refused."""

    rows: int
    overlap: str
    ratings: str
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
    ratings: str
    worlds: int
    refused: int
    covered: float
    low: float
    high: float
    width: float
    bias: float

    @property
    def name(self) -> str:
        """The cell in words."""
        rated = "" if self.ratings == MOST else f", {self.ratings} ratings"
        return f"{self.rows} rows, {self.overlap} overlap{rated}"

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


def _memory(prepared: Prepared) -> Prepared:
    return replace(prepared, fit=_memorised)


def _unrated_counted(prepared: Prepared) -> Prepared:
    """Count rows and sessions without a reward as evidence, as if each showed its noise."""
    log = prepared.log
    rated = replace(log, reward=np.zeros(log.n), observation=np.ones(log.n))
    found = prepared.diagnostics
    return replace(
        prepared,
        diagnostics=replace(found, carrying=carrying_rows(rated), clusters_observed=found.clusters),
    )


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A planted defect: what it does to the log that is evaluated, and to what is estimated from."""

    log: Callable[[BanditLog], BanditLog] = lambda log: log
    prepared: Callable[[Prepared], Prepared] = lambda prepared: prepared


SABOTAGES: Mapping[str, Sabotage] = {
    "wrong_propensity": Sabotage(log=_wrong_propensity),
    "no_cross_fitting": Sabotage(prepared=_memory),
    "no_clusters": Sabotage(log=_no_clusters),
    "unrated_counted": Sabotage(prepared=_unrated_counted),
}


@dataclass(frozen=True, slots=True)
class Told:
    """What the default method says of a log: an interval, or why it is refused."""

    diagnostics: Diagnostics
    interval: Interval
    refusals: tuple[str, ...]

    def row(self, cell: Cell, seed: int, true: float) -> Row:
        """Return it as the row of a world of *cell* in which the difference is *true*."""
        found, i = self.diagnostics, self.interval
        told = (true, i.value, i.low, i.high, found.ess, found.carrying, "; ".join(self.refusals))
        return Row(cell.rows, cell.overlap, cell.ratings, seed, *told)


def told(log: BanditLog, planted: Sabotage | None = None) -> Told:
    """Return what `replay evaluate` would say of *log*, by the same steps; a refused log is not fitted."""
    planted, method = planted or Sabotage(), Method()
    log = planted.log(log)
    none = Interval(float("nan"), float("nan"), float("nan"))
    prepared = prepare(log, method)
    if prepared is None:
        return Told(diagnose(log), none, ("no row can tell",))
    prepared = planted.prepared(prepared)
    refusals, interval = prepared.diagnostics.refusals, none
    if not refusals:
        interval = prepared.difference(method)
        refusals = tuple(amiss(log, interval, partly=False))
    return Told(prepared.diagnostics, none if refusals else interval, refusals)


def evaluated(cell: Cell, seed: int, sabotage: Sabotage | None = None) -> Row:
    """Return what the default method says of one world."""
    return told(world(cell, seed), sabotage).row(cell, seed, truth(cell.epsilon))


def coverage(cell: Cell, rows: Iterable[Row]) -> Coverage:
    """Return the coverage of *cell* over its *rows* that were not refused."""
    key = (cell.rows, cell.overlap, cell.ratings)
    mine = [row for row in rows if (row.rows, row.overlap, row.ratings) == key]
    kept = [row for row in mine if not row.refusals]
    hits = sum(row.low <= row.truth <= row.high for row in kept)
    low, high = _exact(hits, len(kept))
    none = float("nan")
    return Coverage(
        *key,
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
        f"{c.name}: coverage {c.covered:.4f}, exact 99.9 % interval "
        f"[{c.low:.4f}, {c.high:.4f}] is outside [{BAND[0]}, {BAND[1]}]"
        for c in found
        if c.failed
    ]
    # Where there is plenty of overlap a refusal is a defect too: of the weights, or of the rule.
    out += [
        f"{c.name}: {c.refused} of {c.worlds} worlds refused"
        for c in found
        if c.overlap == "good" and c.refused > c.worlds / 2
    ]
    return out


def as_row(row: Row) -> dict[str, object]:
    """Return *row* as plain values."""
    return asdict(row)
