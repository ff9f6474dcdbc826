"""Intervals for the mean of terms whose rows come in clusters.

The unit of error is the cluster (a session, a user): rows of one are not independent. All methods
take terms (n) and cluster numbers (n) and return the ends of a two-sided interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from replay.bandit import Floats, Ints

REPLICATES = 2000
MOST_DRAWN = 4000
_CHUNK = 4_000_000
"""So many draws of clusters at once bound the bootstrap's memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where it may lie."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2.0


@dataclass(frozen=True)
class Clustered:
    """Terms summed by cluster: `sums` and `sizes` (g); their ratio is the mean over rows.

    `carrying` is the effective number of rows that carry the terms' spread (`replay.diagnostics`).
    """

    sums: Floats
    sizes: Floats
    carrying: float = np.inf

    @classmethod
    def of(cls, terms: Floats, cluster: Ints, carrying: float = np.inf) -> Clustered:
        """Return *terms* summed by *cluster*."""
        sums, sizes = np.bincount(cluster, terms), np.bincount(cluster)
        return cls(sums.astype(np.float64), sizes.astype(np.float64), carrying)

    def grouped(self, most: int) -> Clustered:
        """Return the same sums in at most *most* groups of clusters."""
        if len(self.sums) <= most:
            return self
        group = np.arange(len(self.sums)) % most
        sums, sizes = np.bincount(group, self.sums), np.bincount(group, self.sizes)
        return Clustered(sums.astype(np.float64), sizes.astype(np.float64), self.carrying)

    @property
    def mean(self) -> float:
        """The mean over rows."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def residuals(self) -> Floats:
        """What each cluster adds to the error of the mean, scaled to the mean cluster size (g)."""
        return (self.sums - self.mean * self.sizes) / float(self.sizes.mean())

    @property
    def error(self) -> float:
        """The standard error of the mean: cluster-robust, with the factor g/(g-1); NaN for one cluster."""
        count = len(self.sums)
        if count < 2:  # noqa: PLR2004 - one cluster has no spread
            return float("nan")
        return float(np.sqrt((self.residuals**2).sum() / (count * (count - 1.0))))


def clustered_t(data: Clustered, level: float) -> Interval:
    """Return mean -+ t(df) cluster-robust standard errors (Liang and Zeger 1986).

    df is one less than the clusters, or than `carrying` where fewer rows than that carry the spread: the
    error is known no better than from so many (in the way of Satterthwaite 1946).
    """
    quantile = float(stats.t.ppf(0.5 + level / 2.0, freedom(data)))
    return Interval(data.mean, data.mean - quantile * data.error, data.mean + quantile * data.error)


def freedom(data: Clustered) -> float:
    """Return the degrees of freedom of `clustered_t`, at least 1."""
    return max(min(len(data.sums), data.carrying) - 1.0, 1.0)


def studentised(data: Clustered, level: float, *, seed: int = 0, replicates: int = REPLICATES) -> Interval:
    """Return the bootstrap-t interval over clusters (Hall 1988): right for skewed terms too.

    Clusters are drawn with replacement; each draw's error is its own, which is what corrects for skew.
    Needs g >= 2; degenerate draws (no spread) are left out. Beyond 4,000 clusters groups of them are drawn,
    which are as independent as clusters are.
    """
    data = data.grouped(MOST_DRAWN)
    count = len(data.sums)
    if count < 2 or not data.error > 0.0:  # noqa: PLR2004 - as above
        return Interval(data.mean, data.mean - data.error, data.mean + data.error)
    rng = np.random.default_rng(seed)
    per = max(_CHUNK // count, 1)
    studied = [
        _studentised_draws(data, rng.integers(0, count, (min(per, replicates - at), count)))
        for at in range(0, replicates, per)
    ]
    draws = np.concatenate(studied)
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return Interval(data.mean, data.mean - float(high) * data.error, data.mean - float(low) * data.error)


def _studentised_draws(data: Clustered, drawn: Ints) -> Floats:
    """Return (mean* - mean) / error* of each row of *drawn* (b, g)."""
    count = drawn.shape[1]
    sums, sizes = data.sums[drawn], data.sizes[drawn]
    total = sizes.sum(axis=1)
    means = sums.sum(axis=1) / total
    spread = ((sums - means[:, None] * sizes) ** 2).sum(axis=1)
    errors = np.sqrt(spread * (count / (count - 1.0))) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        studied: Floats = (means - data.mean) / errors
    return studied


def percentile(data: Clustered, level: float, *, seed: int = 0, replicates: int = REPLICATES) -> Interval:
    """Return the percentile bootstrap over clusters (Efron 1979; Cameron, Gelbach and Miller 2008)."""
    data = data.grouped(MOST_DRAWN)
    count = len(data.sums)
    rng = np.random.default_rng(seed)
    per = max(_CHUNK // count, 1)
    means = []
    for at in range(0, replicates, per):
        drawn = rng.integers(0, count, (min(per, replicates - at), count))
        means.append(data.sums[drawn].sum(axis=1) / data.sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.5 - level / 2.0, 0.5 + level / 2.0])
    return Interval(data.mean, float(low), float(high))


def empirical_bernstein(data: Clustered, level: float, span: float) -> Interval:
    """Return the interval of Maurer and Pontil (2009, theorem 4), two-sided by a union bound.

    *span* is the range (largest minus smallest possible value) of a cluster's term at mean cluster size. It
    holds for every n, without appeal to normality; raises ValueError where a term lies outside the range.
    """
    count = len(data.sums)
    scaled = data.sums / float(data.sizes.mean())
    if float(np.ptp(scaled)) > span:
        raise ValueError(f"terms range over {float(np.ptp(scaled)):g}, more than the stated {span:g}")
    log = float(np.log(4.0 / (1.0 - level)))
    variance = data.error**2 * count
    half = float(np.sqrt(2.0 * variance * log / count)) + 7.0 * span * log / (3.0 * (count - 1.0))
    return Interval(data.mean, data.mean - half, data.mean + half)


def confidence_sequence(data: Clustered, level: float, *, planned: float | None = None) -> Interval:
    """Return the asymptotic confidence sequence at the present size: valid however often one looks.

    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), theorem 2.2, over clusters in the order in which
    they began. Right too where the logging policy learnt from earlier rows: weights are those of the time.
    It is narrowest at *planned* clusters (default: as many as there are).
    """
    count = float(len(data.sums))
    alpha = 1.0 - level
    aim = planned if planned is not None else count
    tuning = (-2.0 * np.log(alpha) + np.log(-2.0 * np.log(alpha) + 1.0)) / aim
    inner = count * tuning + 1.0
    half = (
        data.error * count**0.5 * np.sqrt(2.0 * inner / (count**2 * tuning) * np.log(np.sqrt(inner) / alpha))
    )
    return Interval(data.mean, data.mean - float(half), data.mean + float(half))


METHODS: dict[str, Callable[[Clustered, float], Interval]] = {
    "clustered_t": clustered_t,
    "bootstrap": percentile,
    "bootstrap_t": studentised,
    "confidence_sequence": confidence_sequence,
}
"""The intervals that need no more than the terms, by name; the first is the default."""
