"""The calibration passes as it stands, and fails for every defect that can be planted in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import replay.estimators
from replay.calibration.run import SABOTAGES, Row, coverage, evaluated, problems
from replay.calibration.worlds import CELLS, FEW, Cell, truth, world
from replay.estimators import estimator

estimator.load(replay.estimators)
CELL = Cell(2000, "good")
WORLDS = 240


def rows(sabotage: str = "") -> list[Row]:
    """Return the rows of one cell."""
    return [evaluated(CELL, seed, SABOTAGES.get(sabotage)) for seed in range(WORLDS)]


def test_a_world_has_what_makes_evaluation_hard() -> None:
    """Sessions that keep their model, missing rewards, heavy tails; the same seed gives the same world."""
    log = world(CELL, 1)

    assert np.array_equal(log.taken, world(CELL, 1).taken)
    assert not np.array_equal(log.taken, world(CELL, 2).taken)
    assert 0.1 < (~log.observed).mean() < 0.6
    assert log.cluster.max() < log.n / 4
    same = log.taken[1:] == log.taken[:-1]
    within = log.cluster[1:] == log.cluster[:-1]
    assert same[within].mean() > same[~within].mean() + 0.2


def test_a_world_of_few_ratings_has_those_of_a_tenth_of_the_sessions() -> None:
    """A session rates all of its answers or none, with a known probability that makes up for the rest."""
    log = world(Cell(18000, "poor", FEW), 1)
    sessions = int(log.cluster.max()) + 1

    assert 0.07 < log.observed.mean() < 0.13
    assert len(np.unique(log.cluster[log.observed])) < 0.13 * sessions
    assert not set(log.cluster[log.observed]) & set(log.cluster[~log.observed])
    assert log.inverse_observation.mean() == pytest.approx(1.0, abs=0.1)


def test_few_ratings_are_refused_unless_what_is_not_rated_counts() -> None:
    """The defect of counting rows without a reward is seen: it gives intervals where there are none."""
    cell = Cell(18000, "poor", FEW)
    right, wrong = (evaluated(cell, 1, SABOTAGES.get(name)) for name in ("", "unrated_counted"))

    assert "rows carry the difference" in right.refusals
    assert wrong.refusals == ""
    assert wrong.low < wrong.high


@pytest.mark.timeout(300)
def test_intervals_cover_as_they_say() -> None:
    """With nothing planted the cell's coverage is compatible with 93 to 97 %."""
    cell = coverage(CELL, rows())

    assert cell.judged
    assert problems([cell]) == []
    assert abs(cell.bias) < 0.02


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sabotage", ["no_cross_fitting"])
def test_a_planted_defect_shows(sabotage: str) -> None:
    """What is wrong with how a log is evaluated shows in one cell already; `make calibration` runs all."""
    assert problems([coverage(CELL, rows(sabotage))])


def test_coverage_below_the_band_is_a_problem_and_few_worlds_are_only_reported() -> None:
    """The judgement itself: 80 % of 1,000 fails, of 150 does not."""
    row = replace(evaluated(CELL, 1), low=-1.0, high=1.0, truth=0.0, refusals="")
    missed = replace(row, low=0.5)
    many = [*[row] * 800, *[missed] * 200]

    assert len(problems([coverage(CELL, many)])) == 1
    assert problems([coverage(CELL, [*many[:120], *many[-30:]])]) == []


def test_refusing_every_world_with_good_overlap_is_a_problem() -> None:
    """A harness that judges nothing has shown nothing."""
    refused = [replace(evaluated(CELL, 1), refusals="because")] * 300

    assert len(problems([coverage(CELL, refused)])) == 1


def test_every_cell_has_a_truth() -> None:
    """Nine cells, six more where few rewards are observed, and differences worth finding."""
    assert [len(cells) for cells in CELLS.values()] == [9, 6]
    assert len({round(truth(cell.epsilon), 6) for cells in CELLS.values() for cell in cells}) == 3
