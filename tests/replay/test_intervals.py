"""Intervals hold the mean as often as they say, and clusters count as one observation each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from replay.intervals import (
    METHODS,
    Clustered,
    Interval,
    clustered_t,
    confidence_sequence,
    empirical_bernstein,
)


def _drawn(seed: int, clusters: int = 120) -> Clustered:
    """Return terms of clusters of unequal sizes whose rows share an effect; their mean is 0."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, clusters)
    cluster = np.repeat(np.arange(clusters), sizes)
    return Clustered.of(rng.normal(size=clusters)[cluster] + rng.normal(size=len(cluster)), cluster)


@pytest.mark.parametrize("name", ["clustered_t", "bootstrap", "bootstrap_t"])
def test_about_95_of_100_intervals_hold_the_mean(name: str) -> None:
    """Coverage over 400 draws lies within what chance allows around 95 %."""
    method: Callable[[Clustered, float], Interval] = METHODS[name]

    held = sum(
        interval.low <= 0.0 <= interval.high
        for interval in (method(_drawn(seed), 0.95) for seed in range(400))
    )

    assert 0.91 <= held / 400 <= 0.985


def test_ignoring_clusters_makes_intervals_too_narrow() -> None:
    """Rows of one session taken as independent are sure of what they do not know."""
    narrow = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(60), 6)
        terms = rng.normal(size=60)[cluster]
        interval = clustered_t(Clustered.of(terms, np.arange(len(terms))), 0.95)
        narrow += not interval.low <= 0.0 <= interval.high

    assert narrow > 60


def test_few_carrying_rows_widen_the_interval() -> None:
    """The error is known no better than from as many rows as carry it."""
    rng = np.random.default_rng(1)
    terms, rows = rng.normal(size=500), np.arange(500)

    assert (
        clustered_t(Clustered.of(terms, rows, 5.0), 0.95).half
        > 1.3 * clustered_t(Clustered.of(terms, rows), 0.95).half
    )


def test_empirical_bernstein_holds_far_more_often_than_it_must_and_refuses_a_wrong_range() -> None:
    """It needs no normality; a range that the terms do not keep is an error."""
    rows = np.arange(300)
    held = 0
    for seed in range(200):
        interval = empirical_bernstein(
            Clustered.of((np.random.default_rng(seed).random(300) < 0.05).astype(float), rows), 0.95, 1.0
        )
        held += interval.low <= 0.05 <= interval.high

    assert held >= 190
    with pytest.raises(ValueError, match=r"more than the stated 0\.5"):
        empirical_bernstein(Clustered.of(np.linspace(0, 1, 300), rows), 0.95, 0.5)


def test_a_confidence_sequence_may_be_looked_at_after_every_row_and_a_fixed_interval_may_not() -> None:
    """Over 100 looks at each of 150 streams misses stay below 5 % for the one, far above for the other."""
    missed_always, missed_fixed = 0, 0
    for seed in range(150):
        terms = np.random.default_rng(seed).normal(size=1100)
        looks = [Clustered.of(terms[:n], np.arange(n)) for n in range(100, 1100, 10)]
        missed_always += any(_misses(confidence_sequence(look, 0.95, planned=500.0)) for look in looks)
        missed_fixed += any(_misses(clustered_t(look, 0.95)) for look in looks)

    assert missed_always <= 12
    assert missed_fixed > 25


def _misses(interval: Interval) -> bool:
    return not interval.low <= 0.0 <= interval.high


def test_grouping_clusters_changes_the_mean_of_nothing() -> None:
    """Groups of clusters have the same mean, and about the same error."""
    data = _drawn(1, clusters=3000)

    assert data.grouped(500).mean == pytest.approx(data.mean)
    assert data.grouped(500).error == pytest.approx(data.error, rel=0.2)
