"""Whether the default method's interval holds the truth on logs drawn from full outcome tables."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

import replay.estimators
from replay.calibration.run import BAND, Coverage, Row, coverage, told
from replay.calibration.worlds import Cell
from replay.estimators import estimator
from replay.full_feedback import Outcomes, drawn


@dataclass(frozen=True, slots=True)
class Trial:
    """What is drawn of a table: so many rows, by a policy that explores so much."""

    rows: int
    epsilon: float

    @property
    def cell(self) -> Cell:
        """The trial as a cell of the calibration, which judges coverage."""
        return Cell(self.rows, f"epsilon {self.epsilon:g}")


def evaluated(found: Outcomes, trial: Trial, seed: int) -> Row:
    """Return what the default method says of one log of *trial*; NaN where a verdict is refused."""
    rng = np.random.default_rng([seed, trial.rows, int(1e6 * trial.epsilon)])
    logging, target = found.exploring(trial.epsilon), found.router
    log = drawn(found, logging, target, trial.rows, rng).log
    truth = found.value(target) - found.value(logging)
    return told(log).row(trial.cell, seed, truth)


def covered(found: Outcomes, trials: Sequence[Trial], draws: int, seed: int = 1) -> list[Coverage]:
    """Return the coverage over *draws* logs of each of *trials*, drawn on every processor."""
    estimator.load(replay.estimators)
    return [coverage(trial.cell, _rows(found, trial, draws, seed)) for trial in trials]


def _rows(found: Outcomes, trial: Trial, draws: int, seed: int) -> Iterator[Row]:
    found.router.sum()  # once, before the workers are forked
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        yield from pool.imap(partial(evaluated, found, trial), range(seed, seed + draws), chunksize=8)


def summary(found: Outcomes) -> dict[str, Any]:
    """Return the numbers that any policy over the table is to be seen beside; no text of the table."""
    policies = {**found.references, "router": found.router}
    return {
        "questions": len(found.questions),
        "incomplete": found.incomplete,
        "copies": found.copies,
        "models": {name: float(mean) for name, mean in zip(found.models, found.means, strict=True)},
        "models_left_out": list(found.left_out),
        "best_single_model": found.models[int(found.ranked[0])],
        "value": {name: found.value(policy) for name, policy in policies.items()},
        "cost": {name: _number(found.cost(policy)) for name, policy in policies.items()},
    }


def plain(cells: Sequence[Coverage]) -> list[dict[str, Any]]:
    """Return *cells* as plain values, with whether each was judged and failed."""
    return [
        {k: _number(v) for k, v in asdict(c).items()}
        | {"judged": c.judged, "failed": c.failed, "band": list(BAND)}
        for c in cells
    ]


def _number(value: Any) -> Any:  # noqa: ANN401 - plain values
    return None if isinstance(value, float) and not np.isfinite(value) else value
