"""Real logged bandit feedback: another policy's value from one log, against that policy's own log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import replay.estimators
from replay.estimators import estimator
from replay.evaluation import DEFAULT, Evaluation, Method, evaluate
from replay.table import table_of

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "obd_logged_bandit"
ACTIONS = 34

pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason="the Open Bandit Dataset (small, men) is not beside the project"
)


def _rows(name: str) -> pa.Table:
    return pyarrow.csv.read_csv(FOLDER / name)


@pytest.fixture(scope="module")
def found() -> Evaluation:
    """Return what the log of the learning policy says of the random policy."""
    estimator.load(replay.estimators)
    rows = _rows("bts_men.csv")
    columns = {
        "request_id": [str(number) for number in range(rows.num_rows)],
        "action": rows["item_id"].cast(pa.string()),
        "propensity": rows["propensity_score"],
        "reward": rows["click"].cast(pa.float64()),
        "x_position": rows["position"].cast(pa.string()),
        **{f"x_user_{i}": rows[f"user_feature_{i}"] for i in range(4)},
        **{f"target:{item}": np.full(rows.num_rows, 1.0 / ACTIONS) for item in range(ACTIONS)},
    }
    return evaluate(table_of(pa.table(columns)).log, Method())


def test_the_default_method_agrees_with_the_policys_own_log(found: Evaluation) -> None:
    """The difference of estimate and on-policy mean lies within both logs' errors."""
    clicks = _rows("random_men.csv")["click"].to_numpy().astype(float)
    own, own_half = clicks.mean(), 1.96 * clicks.std() / np.sqrt(len(clicks))
    estimate = found.values[DEFAULT]

    assert abs(estimate.value - own) <= np.hypot(estimate.half, own_half)


def test_it_says_why_the_interval_is_wide_and_refuses_a_verdict(found: Evaluation) -> None:
    """A dozen of ten thousand rows carry the difference, with weights up to 178."""
    assert found.verdict.word == "not_enough_evidence"
    assert found.diagnostics.carrying < 20
    assert found.diagnostics.max_weight > 100
    assert "carry the difference" in found.sentence
