"""Worlds with a known truth: sessions, heavy tails, drift, missing rewards, and a model that cannot fit them.

Each world has sessions that keep their model (one draw serves a session for most of its requests), a logging
policy and rewards that drift, rewards with a lognormal tail, and rewards that are observed with a known
probability that depends on the reward itself: most of them, or few, those of a tenth of the sessions.
Rewards depend on features in ways that no linear model has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from replay.bandit import BanditLog, Bools, Floats, Ints

ACTIONS = ("small", "medium", "large")
SIZES = (2000, 6000, 18000)
OVERLAPS = {"good": 0.6, "fair": 0.35, "poor": 0.1}
"""Share of traffic that is spread evenly over the actions; the rest follows the logging policy's scores."""
MOST, FEW = "most", "few"

_FEATURES = 4
_STICKY = 0.9
_TRUTH_ROWS = 4_000_000
_CHUNK = 500_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the calibration: so many rows, so much overlap, and most or few of the rewards observed."""

    rows: int
    overlap: str
    ratings: str = MOST

    @property
    def epsilon(self) -> float:
        """The share of traffic that explores."""
        return OVERLAPS[self.overlap]


CELLS = {
    MOST: tuple(Cell(rows, overlap) for rows in SIZES for overlap in OVERLAPS),
    FEW: tuple(Cell(rows, overlap, FEW) for rows in SIZES[1:] for overlap in OVERLAPS),
}


def world(cell: Cell, seed: int) -> BanditLog:
    """Return the log of one world of *cell*, which *seed* alone determines."""
    rng = np.random.default_rng([seed, cell.rows, int(1000 * cell.epsilon)])
    cluster = _sessions(cell.rows, rng)
    sessions = int(cluster[-1]) + 1
    time = np.arange(cell.rows) / cell.rows
    shared = rng.normal(size=(sessions, _FEATURES))[cluster]
    x = 0.7 * shared + np.sqrt(1.0 - 0.7**2) * rng.normal(size=(cell.rows, _FEATURES))
    logged, target = _logging(x, time, cell.epsilon), _target(x)
    sticky = rng.random(cell.rows) < _STICKY
    draw = np.where(sticky, rng.random(sessions)[cluster], rng.random(cell.rows))
    taken = (draw[:, None] > logged.cumsum(axis=1)[:, :-1]).sum(axis=1)
    rows = np.arange(cell.rows)
    noise = rng.lognormal(0.0, 1.0, cell.rows) - np.exp(0.5)
    effect = rng.normal(size=(sessions, len(ACTIONS)))[cluster, taken]
    reward = _mean(x, time)[rows, taken] + 1.3 * effect + 0.3 * noise
    if cell.ratings == FEW:
        shown_with, shown = _sessions_rated(reward, cluster, rng)
    else:
        shown_with = 0.35 + 0.6 / (1.0 + np.exp(-reward))
        shown = rng.random(cell.rows) < shown_with
    return BanditLog(
        actions=ACTIONS,
        taken=taken,
        propensity=logged[rows, taken],
        reward=np.where(shown, reward, np.nan),
        observation=np.where(shown, shown_with, 1.0),
        target=target,
        logged=logged,
        features=x,
        feature_names=tuple(f"x_{i}" for i in range(_FEATURES)),
        cluster=cluster,
    )


@lru_cache
def truth(epsilon: float) -> float:
    """Return the true difference target minus logging, from four million contexts (error: about 0.0003)."""
    rng = np.random.default_rng(20_260_101)
    total = 0.0
    for _ in range(_TRUTH_ROWS // _CHUNK):
        x, time = rng.normal(size=(_CHUNK, _FEATURES)), rng.random(_CHUNK)
        total += float(((_target(x) - _logging(x, time, epsilon)) * _mean(x, time)).sum())
    return total / _TRUTH_ROWS


def _sessions_rated(reward: Floats, cluster: Ints, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Return with which probability, and whether, each row's reward is observed: all of a session or none."""
    mean = np.bincount(cluster, reward) / np.bincount(cluster)
    rate = 0.05 + 0.1 / (1.0 + np.exp(-mean))
    return rate[cluster], (rng.random(len(rate)) < rate)[cluster]


def _sessions(rows: int, rng: np.random.Generator) -> Ints:
    """Return session numbers (n): sessions follow each other, of 2 to 10 requests."""
    sizes = rng.integers(2, 11, rows)
    ends = sizes.cumsum()
    numbers: Ints = np.searchsorted(ends, np.arange(rows), side="right").astype(np.int64)
    return numbers


def _scores(x: Floats, time: Floats) -> Floats:
    """Return the logging policy's scores (n, k), which drift."""
    return np.stack([x[:, 0], 0.8 + 0.3 * x[:, 1], x[:, 2] * (0.5 + time)], axis=1)


def _logging(x: Floats, time: Floats, epsilon: float) -> Floats:
    best = np.eye(len(ACTIONS))[_scores(x, time).argmax(axis=1)]
    mixed: Floats = (1.0 - epsilon) * best + epsilon / len(ACTIONS)
    return mixed


def _target(x: Floats) -> Floats:
    """Return the target policy (n, k): deterministic, and the logging policy's choice for most requests."""
    scores = _scores(x, np.full(len(x), 0.5))
    changed = x[:, 3] > 0.9  # noqa: PLR2004 - a fifth of the traffic
    choice = np.where(changed, 2, scores.argmax(axis=1))
    chosen: Floats = np.eye(len(ACTIONS))[choice]
    return chosen


def _mean(x: Floats, time: Floats) -> Floats:
    """Return the mean reward of every action (n, k)."""
    small = np.sin(2.0 * x[:, 0]) + 0.5 * time
    medium = 0.3 + 0.5 * np.abs(x[:, 1]) - 0.4 * time
    large = 0.2 + x[:, 2] * x[:, 3] * 0.5 + np.where(x[:, 3] > 0.9, 0.4, 0.0)  # noqa: PLR2004 - where the target changes
    return np.stack([small, medium, large], axis=1)
