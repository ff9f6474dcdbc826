"""Which threshold to propose from labelled scores, how sure that is, and what it would catch.

The threshold is chosen on one half of the clusters and judged on the other, so that the best of many does
not look better than it is. Intervals are percentiles of a bootstrap over clusters (Davison and Hinkley 1997,
ch. 3), or where that has no spread, at rates of 0 and 1, exact (Clopper and Pearson 1934) over the clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from replay.intervals import Interval
from replay.sweeping.labels import Sample

Floats = NDArray[np.float64]
REPLICATES = 2000
FEWEST = 20
"""Clusters with a label of each kind that each half must have."""
_TAIL = 0.025
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Rates:
    """What a threshold catches of what ought to match, and raises falsely of what ought not (steps)."""

    caught: Floats
    false_alarms: Floats


@dataclass(frozen=True, slots=True)
class Proposal:
    """A threshold, where it may lie, and what it does on the half that did not choose it."""

    rule: str
    threshold: Interval
    caught: Interval
    false_alarms: Interval
    caught_now: Interval
    false_alarms_now: Interval
    better: Interval


@dataclass(frozen=True)
class _Counts:
    """By cluster and step: rows that ought to match and do, and that ought not and do; and how many ought."""

    hits: Floats
    alarms: Floats
    positives: Floats
    negatives: Floats

    def only(self, rows: NDArray[np.bool_]) -> _Counts:
        return _Counts(self.hits[rows], self.alarms[rows], self.positives[rows], self.negatives[rows])

    def drawn(self, weights: Floats) -> Rates:
        """Return the rates of each replicate, a row of *weights* (replicates, clusters) each."""
        positives = np.maximum(weights @ self.positives, 1e-300)[:, None]
        negatives = np.maximum(weights @ self.negatives, 1e-300)[:, None]
        return Rates((weights @ self.hits) / positives, (weights @ self.alarms) / negatives)


def rates_of(sample: Sample, values: Sequence[float]) -> Rates:
    """Return both rates of *sample* at each of *values*; NaN where there is nothing of a kind."""
    counts = _counts(sample, values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Rates(
            counts.hits.sum(axis=0) / counts.positives.sum(),
            counts.alarms.sum(axis=0) / counts.negatives.sum(),
        )


def _counts(sample: Sample, values: Sequence[float]) -> _Counts:
    clusters = int(sample.cluster.max(initial=-1)) + 1
    matched = sample.score[:, None] >= np.asarray(values)[None, :]
    hits, alarms = np.zeros((clusters, len(values))), np.zeros((clusters, len(values)))
    np.add.at(hits, sample.cluster[sample.label], matched[sample.label].astype(np.float64))
    np.add.at(alarms, sample.cluster[~sample.label], matched[~sample.label].astype(np.float64))
    positives = np.bincount(sample.cluster, weights=sample.label, minlength=clusters)
    negatives = np.bincount(sample.cluster, weights=~sample.label, minlength=clusters)
    return _Counts(hits, alarms, positives.astype(np.float64), negatives.astype(np.float64))


def propose(
    sample: Sample,
    values: Sequence[float],
    current: float,
    *,
    most_alarms: float | None = None,
    seed: int = 0,
) -> Proposal | str:
    """Return the proposal for *values*, or in words why there can be none.

    With *most_alarms* the threshold that catches most with at most that share of false alarms, else the one
    with the largest difference of both rates (Youden 1950).
    """
    counts = _counts(sample, values)
    random = np.random.default_rng(seed)
    chooses = _halves(counts, random)
    one, other = counts.only(chooses), counts.only(~chooses)
    for half in (one, other):
        few = min(int((half.positives > 0).sum()), int((half.negatives > 0).sum()))
        if few < FEWEST:
            return (
                f"a half of the labels has {few} clusters of one kind, fewer than {FEWEST}: label about "
                f"{2 * (FEWEST - few)} more"
            )
    sure = one.drawn(np.ones((1, len(one.positives))))
    chosen = int(_best(sure, most_alarms)[0])
    drawn = np.concatenate([_best(one.drawn(w), most_alarms) for w in _weights(len(one.positives), random)])
    ends = np.quantile(np.asarray(values)[drawn], (_TAIL, 1.0 - _TAIL))
    now = int(np.searchsorted(values, current))
    judged = _judged(other, (chosen, now), random)
    if most_alarms is not None:
        least, there = float(sure.false_alarms[0, chosen]), judged[1].low
        if max(least, there) > most_alarms:
            return (
                f"no threshold of those swept keeps false alarms to {most_alarms:g}: at {values[chosen]:g} "
                f"they are {least:.4g} on one half of the labels and at least {there:.4g} on the other"
            )
    rule = (
        "largest difference of both rates" if most_alarms is None else f"false alarms at most {most_alarms:g}"
    )
    return Proposal(rule, Interval(values[chosen], float(ends[0]), float(ends[1])), *judged)


def _halves(counts: _Counts, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return which clusters choose: every other one of a random order, those with positives first."""
    order = random.permutation(len(counts.positives))
    order = order[np.argsort(counts.positives[order] > 0, kind="stable")]
    chooses = np.zeros(len(order), dtype=np.bool_)
    chooses[order[::2]] = True
    return chooses


def _best(rates: Rates, most_alarms: float | None) -> NDArray[np.int64]:
    """Return the best step of each replicate; of equal ones in a row the middle."""
    if most_alarms is None:
        worth = rates.caught - rates.false_alarms
    else:
        worth = np.where(rates.false_alarms <= most_alarms, rates.caught, -rates.false_alarms)
    top = worth >= worth.max(axis=1, keepdims=True) - 1e-12
    first = top.argmax(axis=1)
    run = top | (np.arange(top.shape[1])[None, :] < first[:, None])
    last = np.where(run.all(axis=1), top.shape[1] - 1, (~run).argmax(axis=1) - 1)
    middle: NDArray[np.int64] = ((first + last) // 2).astype(np.int64)
    return middle


def _weights(clusters: int, random: np.random.Generator) -> list[Floats]:
    """Return how often each cluster is drawn in each replicate, some replicates at a time."""
    replicate = np.repeat(np.arange(_AT_ONCE), clusters) * clusters
    drawn = [replicate + random.integers(0, clusters, len(replicate)) for _ in range(REPLICATES // _AT_ONCE)]
    size = _AT_ONCE * clusters
    return [np.bincount(d, minlength=size).reshape(_AT_ONCE, clusters).astype(np.float64) for d in drawn]


def _judged(counts: _Counts, steps: tuple[int, int], random: np.random.Generator) -> tuple[Interval, ...]:
    """Return caught and false alarms at both *steps*, and how much better the first is than the second."""
    sure = counts.drawn(np.ones((1, len(counts.positives))))
    drawn = [counts.drawn(weights) for weights in _weights(len(counts.positives), random)]
    caught = np.concatenate([rates.caught for rates in drawn])
    alarms = np.concatenate([rates.false_alarms for rates in drawn])
    found = []
    for step in steps:
        found += [_rate(sure.caught[0, step], caught[:, step], counts.positives)]
        found += [_rate(sure.false_alarms[0, step], alarms[:, step], counts.negatives)]
    worth, all_worth = sure.caught - sure.false_alarms, caught - alarms
    better = worth[0, steps[0]] - worth[0, steps[1]]
    found.append(_interval(better, all_worth[:, steps[0]] - all_worth[:, steps[1]]))
    return tuple(found)


def _rate(value: float, draws: Floats, rows: Floats) -> Interval:
    """Return the interval of a rate over clusters that have *rows* of its kind each.

    No draw differs from a rate of 0 or 1, so its open end is then what as many clusters rule out at most.
    """
    found = _interval(value, draws)
    least = _TAIL ** (1.0 / int((rows > 0.0).sum()))
    low = min(found.low, least) if value >= 1.0 else found.low
    high = max(found.high, 1.0 - least) if value <= 0.0 else found.high
    return Interval(found.value, low, high)


def _interval(value: float, draws: Floats) -> Interval:
    low, high = np.quantile(draws, (_TAIL, 1.0 - _TAIL))
    return Interval(float(value), float(low), float(high))
